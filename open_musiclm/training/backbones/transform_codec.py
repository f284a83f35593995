"""First weights of an EnCodec that make it a linear transform codec (`"init": "transform"`).

EnCodec's networks have no normalization of activations: with random weights the latents are nearly silent for
thousands of steps. Here every strided convolution starts as the principal components of its own input, block by block,
and the decoder as the transpose of the encoder: the untrained model already reconstructs what its latents can hold
linearly. ELU is nearly linear around zero, so the sound runs through the network at a small scale.
"""

from typing import Any

import encodec
import torch
from encodec.modules import SLSTM, SConv1d, SConvTranspose1d
from encodec.modules.seanet import SEANetResnetBlock
from jaxtyping import Float
from torch import Tensor

_INNER_DEVIATION = 0.03
_NOISE = 0.02


@torch.no_grad()
def start_as_transform_codec(model: encodec.EncodecModel, example: Float[Tensor, "batch samples"]) -> None:
    """Sets encoder and decoder from `example`, typical sound at the model's rate, some 10 s of it or more."""
    scale = _INNER_DEVIATION / float(example.std())
    layers: list[Any] = [*model.encoder.model]
    first: Any
    last: Any
    first, *middle, last = [layer for layer in layers if isinstance(layer, SConv1d)]
    decoding: list[Any] = [*model.decoder.model]
    end: Any
    start, *upward, end = [layer for layer in decoding if isinstance(layer, SConv1d | SConvTranspose1d)]
    for layer in (*layers, *decoding):
        if isinstance(layer, SEANetResnetBlock):
            _pass_through(layer)
        elif isinstance(layer, SLSTM):
            for parameter in layer.parameters():
                parameter.mul_(0.1)
    _set(first.conv.conv, _impulse(first.conv.conv, scale))
    _set(end.conv.conv, _impulse(end.conv.conv, 1 / scale))
    mirror: dict[Any, Any] = dict(zip((*middle, last), (*reversed(upward), start), strict=True))
    signal = example[:, None]
    for layer in layers:
        if layer in mirror:
            deviation = 1.0 if layer is last else None
            _set_principal_components(layer.conv.conv, mirror[layer], signal, deviation)
        signal = layer(signal)


def _set_principal_components(
    convolution: Any, mirror: Any, signal: Float[Tensor, "batch channels time"], deviation: float | None
) -> None:
    stride, width, channels = convolution.stride[0], convolution.kernel_size[0], convolution.out_channels
    blocks = signal.unfold(2, stride, stride).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    covariance = torch.cov(blocks.T.cpu().double())  # some devices (MPS) have no float64
    variances, components = torch.linalg.eigh(covariance)
    kept = components.flip(1)[:, :channels].T.to(signal)
    filters = torch.nn.functional.pad(kept, (0, 0, 0, channels - len(kept)))
    gain = 1.0 if deviation is None else deviation / float(variances.flip(0)[:channels].mean().sqrt())
    weight = torch.zeros_like(convolution.weight_v)
    weight[:, :, width - stride :] = filters.view(channels, -1, stride)
    _set(convolution, weight * gain)
    if isinstance(mirror, SConvTranspose1d):
        upward: Any = mirror.convtr.convtr
        transposed = torch.zeros_like(upward.weight_v)
        transposed[:, :, :stride] = filters.view(channels, -1, stride)
        _set(upward, transposed / gain)
    else:
        transposed = torch.zeros_like(mirror.conv.conv.weight)
        transposed[:, :, -1] = filters.T
        _set(mirror.conv.conv, transposed / gain)


def _pass_through(block: Any) -> None:
    shortcut = block.shortcut.conv.conv
    _set(shortcut, torch.eye(shortcut.out_channels)[:, :, None])
    block.block[-1].conv.conv.weight_g.mul_(0.1)
    convolutions: list[Any] = [module for module in block.block if isinstance(module, SConv1d)]
    for convolution in convolutions:
        convolution.conv.conv.bias.zero_()


def _impulse(convolution: Any, gain: float) -> Tensor:
    weight = torch.zeros_like(convolution.weight)
    weight[0, 0, -1] = gain
    return weight


def _set(convolution: Any, weight: Tensor) -> None:
    """Sets a weight-normalized weight; a little noise lets the unused taps and channels be trained."""
    noisy = weight + _NOISE * weight.abs().amax() * torch.randn_like(weight) / weight[0].numel() ** 0.5
    convolution.weight_v.copy_(noisy)
    convolution.weight_g.copy_(noisy.norm(dim=(1, 2), keepdim=True))
    convolution.bias.zero_()
