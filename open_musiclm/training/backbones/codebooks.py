"""Training of EnCodec's residual vector quantizer: what the encodec package leaves out or does wrong.

The package's own forward pass hides the residual of every codebook but the first from the encoder, so that
their commitment losses have no gradient (encodec issue 25), and its moving average undoes the replacement of
dead codes. The functions here work on the package's modules and buffers, so that the weights stay exchangeable.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from encodec.quantization import ResidualVectorQuantizer
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.training.distributed import all_reduce, gather_positions, num_processes

_SMOOTHING = 1e-5


class Quantized(NamedTuple):
    """Quantized latents with straight-through gradients, their codes, and the commitment loss."""

    latents: Float[Tensor, "batch dim time"]
    codes: Int[Tensor, "batch time quantizers"]
    commitment: Float[Tensor, ""]


def codebook_usage(used: Float[Tensor, "quantizers codes"]) -> dict[str, float]:
    """The share of codes of the least used codebook, and of all; `used` is 1 where this process has seen a code."""
    usage = all_reduce(used).clamp(max=1).mean(dim=1)
    return {"least_codebook_usage": usage.min().item(), "mean_codebook_usage": usage.mean().item()}


def quantize_and_update(
    quantizer: ResidualVectorQuantizer,
    latents: Float[Tensor, "batch dim time"],
    quantizers: int,
    decay: float,
    dead_code_share: float,
    rng: np.random.Generator,
) -> Quantized:
    """Quantizes with the first `quantizers` codebooks and moves them towards what they were chosen for.

    Codebooks are moving averages (`decay`) as in VQ-VAE, over the batches of all processes, whose `rng` are equal; a
    code that is used less than `dead_code_share` of the average is replaced by a vector of the batch. The commitment
    loss is the mean over the codebooks of |residual - code|^2; its gradient reaches the encoder from every codebook
    (EnCodec, 3.4).
    """
    flat = latents.transpose(1, 2).flatten(0, 1)
    residual, codes, commitments = flat, [], []
    layers: list[Any] = [*quantizer.vq.layers][:quantizers]
    for codebook in (layer._codebook for layer in layers):
        if not codebook.inited:
            _start_from(codebook, residual.detach(), rng)
        chosen = codebook.quantize(residual.detach())
        quantized = F.embedding(chosen, codebook.embed).clone()
        codes.append(chosen)
        commitments.append(F.mse_loss(residual, quantized))
        _update(codebook, residual.detach(), chosen, decay, dead_code_share, rng)
        residual = residual - quantized
    shape = (latents.shape[0], latents.shape[2], -1)
    straight_through = flat - residual.detach()
    return Quantized(
        straight_through.view(shape).transpose(1, 2),
        torch.stack(codes, dim=-1).view(shape),
        torch.stack(commitments).mean(),
    )


@torch.no_grad()
def _start_from(codebook: Any, vectors: Float[Tensor, "vectors dim"], rng: np.random.Generator) -> None:
    size = codebook.embed.shape[0]
    codebook.embed.copy_(_sample(vectors, size, rng))
    codebook.cluster_size.fill_(num_processes() * len(vectors) / size)
    codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[:, None])
    codebook.inited.fill_(1)


@torch.no_grad()
def _update(
    codebook: Any,
    vectors: Float[Tensor, "vectors dim"],
    chosen: Int[Tensor, "vectors"],
    decay: float,
    dead_code_share: float,
    rng: np.random.Generator,
) -> None:
    size = codebook.embed.shape[0]
    counts = all_reduce(torch.bincount(chosen, minlength=size).to(vectors.dtype))
    sums = all_reduce(torch.zeros_like(codebook.embed).index_add_(0, chosen, vectors))
    if not sums.isfinite().all():
        return  # this step is skipped, and must leave nothing behind
    codebook.cluster_size.lerp_(counts, 1 - decay)
    codebook.embed_avg.lerp_(sums, 1 - decay)
    dead = codebook.cluster_size < dead_code_share * codebook.cluster_size.mean()
    if dead.any():
        revived = _sample(vectors, int(dead.sum()), rng)
        codebook.cluster_size[dead] = codebook.cluster_size.mean()
        codebook.embed_avg[dead] = revived * codebook.cluster_size[dead][:, None]
    codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size.clamp(min=_SMOOTHING)[:, None])


def _sample(vectors: Float[Tensor, "vectors dim"], count: int, rng: np.random.Generator) -> Float[Tensor, "count dim"]:
    """Random vectors of all processes; where there are too few, some more than once."""
    positions = torch.from_numpy(rng.permutation(num_processes() * len(vectors)))
    return gather_positions(vectors, positions.repeat(-(-count // len(positions)))[:count])
