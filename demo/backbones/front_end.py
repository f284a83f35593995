"""Sets HuBERT's front end to a bank of band-pass filters.

Seven strided convolutions turn samples into 50 frames a second, or 25. Random weights pass on hardly more than loudness
and brightness, too little to find pitches or onsets in. As a filter bank, the first four pass the
whole wave on, because GELU(x) - GELU(-x) = x; the last three split off the loudness of narrow bands, the highest first,
because GELU(x) + GELU(-x) is about |x|, each over as many samples as its width allows.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import HubertModel

FEWEST_CHANNELS = 96
_WHOLE_LAYERS = 4  # pass the wave on as it is
_HIGH_BANDS, _MIDDLE_SHARE = 10, 1 / 16  # of the channels; the low bands take what is left
_EDGES = (0.45, 0.1, 0.044, 0.005)  # cycles a sample; at 16 kHz 7200, 1600, 700 and 80 Hz
_GAIN = 60.0  # of a filter for one cycle a sample; lower ones have less, where music has more


@dataclass(frozen=True)
class _Channels:
    """A frame's channels: the outputs of `filters` over the frame's block of samples, channel 2i positive and 2i + 1
    negated; then the loudness of bands, each the sum of `parts` channels."""

    filters: Float[Tensor, "linear block"]
    parts: tuple[int, ...]


@torch.no_grad()
def set_front_end(model: HubertModel) -> Float[Tensor, "bands channels"]:
    """Sets the seven convolutions of a model with at least `FEWEST_CHANNELS`.

    Returns which of their last channels sum to each band's loudness, the highest band first.
    """
    layers: list[Any] = [layer.conv for layer in model.feature_extractor.conv_layers]
    width, block = layers[0].out_channels, 1
    signal = _Channels(torch.ones(1, 1), ())
    for layer in layers[:_WHOLE_LAYERS]:
        block *= layer.stride[0]
        signal = _set(layer, signal, torch.eye(block), torch.zeros(0, block))
    for layer, highest, lowest in zip(layers[_WHOLE_LAYERS:], _EDGES[:-1], _EDGES[1:], strict=True):
        block *= layer.stride[0]
        there = len(signal.parts)
        bands = round(_MIDDLE_SHARE * width) if there else _HIGH_BANDS
        if layer is layers[-1]:
            bands = (width - there) // 4
        linear = 0 if layer is layers[-1] else (width - there - 4 * bands) // 2
        signal = _set(layer, signal, _cosines(linear, block), _band_filters(lowest, highest, bands, block))
    sums = torch.block_diag(*(torch.ones(1, parts) for parts in signal.parts))
    return functional.pad(sums, (0, width - sums.shape[1]))


def _set(
    layer: Any, signal: _Channels, passed_on: Float[Tensor, "linear block"], bands: Float[Tensor, "filters block"]
) -> _Channels:
    """Sets a convolution over `stride` frames of the channels that `signal` describes. Its output channels are filters
    that are passed on, the loudness of earlier bands, and new bands; any others stay random."""
    stride, weight = layer.stride[0], torch.zeros_like(layer.weight)
    blocks = torch.block_diag(*[signal.filters] * stride)
    filters = (torch.cat((passed_on, bands)) @ torch.linalg.pinv(blocks)).unflatten(1, (stride, -1)).transpose(1, 2)
    signed = torch.stack((filters, -filters), dim=1).flatten(0, 1)
    there, first_band = len(signal.parts), 2 * len(passed_on)
    outputs = [*range(first_band), *range(first_band + there, len(signed) + there)]
    linear = 2 * len(signal.filters)
    if layer.in_channels == 1:
        weight[outputs, :, :stride] = signed
    else:
        weight[outputs, 0:linear:2, :stride] = signed
        weight[outputs, 1:linear:2, :stride] = -signed
    begin = linear
    for number, parts in enumerate(signal.parts):
        weight[first_band + number, begin : begin + parts, :stride] = 1 / stride
        begin += parts
    used = len(signed) + there
    weight[used:] = layer.weight[used:]
    layer.weight.copy_(weight)
    return _Channels(passed_on, (*[1] * there, *[4] * (len(bands) // 2)))


def _cosines(count: int, block: int) -> Float[Tensor, "count block"]:
    """The slowest orthonormal cosines over a block; they pass frequencies up to count / (2 block) cycles a sample."""
    time = (torch.arange(block) + 0.5) / block
    waves = torch.cos(math.pi * torch.arange(count)[:, None] * time)
    return waves / waves.norm(dim=1, keepdim=True)


def _band_filters(lowest: float, highest: float, bands: int, block: int) -> Float[Tensor, "filters block"]:
    """Cosine and sine of each of `bands` equally spaced frequencies, under a window that suits the spacing and fits the
    block."""
    spacing = (highest - lowest) / bands
    centres = lowest + spacing * (torch.arange(bands) + 0.5)
    time = torch.arange(block) - (block - 1) / 2
    length = min(3 / spacing, block)
    windows = torch.where(time.abs() < length / 2, torch.cos(math.pi * time / length), 0)
    windows = windows / windows.sum() * _GAIN * centres[:, None].sqrt()
    phases = 2 * math.pi * centres[:, None] * time
    return torch.stack((windows * torch.cos(phases), windows * torch.sin(phases)), dim=1).flatten(0, 1)
