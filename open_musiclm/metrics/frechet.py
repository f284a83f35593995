"""Distances between sets of clips, and clips to compare with."""

import torch
from jaxtyping import Float
from torch import Tensor

_ENVELOPE_SECONDS = 0.02


def frechet_distance(left: Float[Tensor, "clips dim"], right: Float[Tensor, "others dim"]) -> float:
    """The Fréchet distance (Heusel et al. 2017) of two sets of embeddings, each taken as a normal distribution.

    It is too high where there are few clips, the more so the more dimensions: compare only sets of equal size.
    """
    first, second = left.double(), right.double()
    means = (first.mean(0) - second.mean(0)).square().sum()
    covariances = [torch.atleast_2d(torch.cov(embeddings.T)) for embeddings in (first, second)]
    root = _square_root(covariances[0])
    product = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt().sum()
    return float(means + covariances[0].trace() + covariances[1].trace() - 2 * product)


def noise_modulated(
    wave: Float[Tensor, "samples"], sample_hz: int, generator: torch.Generator
) -> Float[Tensor, "samples"]:
    """White noise with the loudness of the wave, followed in steps of 20 ms: its rhythm without its sound."""
    step = round(_ENVELOPE_SECONDS * sample_hz)
    power = torch.nn.functional.avg_pool1d(wave.square()[None], step, ceil_mode=True)[0].sqrt()
    return torch.randn(len(wave), generator=generator) * power.repeat_interleave(step)[: len(wave)]


def _square_root(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
