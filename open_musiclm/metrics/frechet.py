"""The Fréchet distance between two sets of embeddings (Heusel et al. 2017; of sound: Kilgour et al. 2019)."""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(left: Float[Tensor, "clips dim"], right: Float[Tensor, "others dim"]) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)) of the means m and covariances C (divided by n - 1) of two sets.

    It is biased upwards in small sets, the more so the more dimensions: compare only sets of equal size.
    """
    first, second = left.double(), right.double()
    means = (first.mean(0) - second.mean(0)).square().sum()
    covariances = [torch.atleast_2d(torch.cov(embeddings.T)) for embeddings in (first, second)]
    root = _square_root(covariances[0])
    product = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt().sum()
    return float(means + covariances[0].trace() + covariances[1].trace() - 2 * product)


def _square_root(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
