"""Kullback-Leibler divergence of class probabilities of two sounds (of generated music: Copet et al. 2023)."""

from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6  # audiocraft's, added to the probabilities that are divided by


def kl_divergence(of: Float[Tensor, "clips classes"], to: Float[Tensor, "clips classes"]) -> Float[Tensor, "clips"]:
    """KL(of || to) = sum of p ln(p / q) with p from `of` and q from `to`, of each pair, in nats."""
    p, q = of.double(), to.double() + EPSILON
    return (p * (p.clamp_min(1e-300).log() - q.log())).sum(dim=1)
