"""Density and coverage of a set of embeddings (Naeem et al. 2020).

Around every reference vector lies a ball that reaches to its k-th nearest other reference vector, k = 5.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NEAREST = 5
_ROWS_AT_ONCE = 1024


def density_of_each(
    evaluated: Float[Tensor, "vectors dim"], reference: Float[Tensor, "others dim"]
) -> Float[Tensor, "vectors"]:
    """In how many balls each evaluated vector lies, divided by k; the mean is the density.

    Raises ValueError if the reference has no more than k vectors.
    """
    radii = _radii(reference)
    inside = torch.zeros(len(evaluated)).double()
    for first in range(0, len(reference), _ROWS_AT_ONCE):
        rows, own = reference[first : first + _ROWS_AT_ONCE].double(), radii[first : first + _ROWS_AT_ONCE]
        for start in range(0, len(evaluated), _ROWS_AT_ONCE):
            distances = _distances(rows, evaluated[start : start + _ROWS_AT_ONCE].double())
            inside[start : start + _ROWS_AT_ONCE] += (distances < own.unsqueeze(1)).sum(0)
    return inside / NEAREST


def covered(evaluated: Float[Tensor, "vectors dim"], reference: Float[Tensor, "others dim"]) -> Bool[Tensor, "others"]:
    """Whether each reference vector's ball holds an evaluated one; the share is the coverage.

    Raises ValueError if the reference has no more than k vectors.
    """
    radii, found = _radii(reference), []
    for first in range(0, len(reference), _ROWS_AT_ONCE):
        rows = reference[first : first + _ROWS_AT_ONCE].double()
        closest = torch.full((len(rows),), float("inf")).double()
        for start in range(0, len(evaluated), _ROWS_AT_ONCE):
            distances = _distances(rows, evaluated[start : start + _ROWS_AT_ONCE].double())
            closest = torch.minimum(closest, distances.amin(1))
        found.append(closest < radii[first : first + _ROWS_AT_ONCE])
    return torch.cat(found)


def _radii(reference: Float[Tensor, "vectors dim"]) -> Float[Tensor, "vectors"]:
    """The distance of each vector to its k-th nearest other one."""
    if len(reference) <= NEAREST:
        raise ValueError(f"density and coverage take more than {NEAREST} reference vectors")
    radii = []
    for first in range(0, len(reference), _ROWS_AT_ONCE):
        rows = reference[first : first + _ROWS_AT_ONCE].double()
        least = torch.zeros(len(rows), 0).double()
        for start in range(0, len(reference), _ROWS_AT_ONCE):
            distances = _distances(rows, reference[start : start + _ROWS_AT_ONCE].double())
            if first == start:
                distances.fill_diagonal_(0)
            least = torch.cat((least, distances), dim=1)
            least = least.topk(min(NEAREST + 1, least.shape[1]), largest=False).values  # itself is one of them
        radii.append(least.amax(1))
    return torch.cat(radii)


def _distances(left: Float[Tensor, "left dim"], right: Float[Tensor, "right dim"]) -> Float[Tensor, "left right"]:
    return torch.cdist(left, right)
