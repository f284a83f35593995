"""Kernel audio distance (KAD, Chung et al. 2025): 100 times the unbiased squared maximum mean discrepancy (Gretton et
al. 2012) of two sets of embeddings, with a Gaussian kernel."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

SCALE = 100.0
MOST_ROWS_OF_MEDIAN = 4096
_EPSILON = 1e-8  # kadtk's, beside twice the squared bandwidth
_ROWS_AT_ONCE = 1024


def median_distance(embeddings: Float[Tensor, "vectors dim"], rng: np.random.Generator) -> float:
    """The median distance of two vectors of a set, which is the kernel's bandwidth; the lower of two middle ones.

    Of more than `MOST_ROWS_OF_MEDIAN` vectors so many are drawn. Raises ValueError if there are fewer than two.
    """
    if len(embeddings) < 2:
        raise ValueError("a distance takes two vectors")
    if len(embeddings) > MOST_ROWS_OF_MEDIAN:
        drawn = np.sort(rng.choice(len(embeddings), MOST_ROWS_OF_MEDIAN, replace=False))
        embeddings = embeddings[torch.from_numpy(drawn)]
    return float(torch.nn.functional.pdist(embeddings.double()).median())


@dataclass(frozen=True)
class GroupedSet:
    """Vectors, and the group that each belongs to: groups are what a bootstrap resamples."""

    vectors: Float[Tensor, "vectors dim"]
    groups: Int[Tensor, "vectors"]
    count: int

    def sizes(self) -> Float[Tensor, "groups"]:
        """The number of vectors of each group."""
        return torch.bincount(self.groups, minlength=self.count).double()


@dataclass(frozen=True)
class KernelSums:
    """Sums of the kernel, and numbers of pairs, over the pairs of vectors of two groups; no vector with itself."""

    within_left: Float[Tensor, "left left"]
    within_right: Float[Tensor, "right right"]
    between: Float[Tensor, "left right"]
    left_sizes: Float[Tensor, "left"]
    right_sizes: Float[Tensor, "right"]

    def distance(self, left: Float[Tensor, "left"] | None = None, right: Float[Tensor, "right"] | None = None) -> float:
        """The KAD, each group counted as often as its weight says; copies of a group are not compared with each other.

        It may be below 0 where the sets are alike. Raises ValueError if a set has no pair.
        """
        left = torch.ones_like(self.left_sizes) if left is None else left.double()
        right = torch.ones_like(self.right_sizes) if right is None else right.double()
        within = _within(self.within_left, self.left_sizes, left) + _within(self.within_right, self.right_sizes, right)
        between = (left @ self.between @ right) / ((left @ self.left_sizes) * (right @ self.right_sizes))
        return SCALE * float(within - 2 * between)


def kernel_sums(left: GroupedSet, right: GroupedSet, bandwidth: float) -> KernelSums:
    """The kernel exp(-|x - y|^2 / (2 bandwidth^2)) summed over all pairs, in blocks: memory is bounded."""
    gamma = 1 / (2 * bandwidth**2 + _EPSILON)
    return KernelSums(
        _summed(left, left, gamma, same=True),
        _summed(right, right, gamma, same=True),
        _summed(left, right, gamma, same=False),
        left.sizes(),
        right.sizes(),
    )


def _summed(left: GroupedSet, right: GroupedSet, gamma: float, same: bool) -> Float[Tensor, "left right"]:
    sums = torch.zeros(left.count, right.count).double()
    for first in range(0, len(left.vectors), _ROWS_AT_ONCE):
        rows = left.vectors[first : first + _ROWS_AT_ONCE].double()
        rows_groups = left.groups[first : first + _ROWS_AT_ONCE]
        for start in range(0, len(right.vectors), _ROWS_AT_ONCE):
            columns = right.vectors[start : start + _ROWS_AT_ONCE].double()
            kernel = torch.cdist(rows, columns).square().mul_(-gamma).exp_()
            if same and first == start:
                kernel.fill_diagonal_(0)
            by_left = torch.zeros(left.count, len(columns)).double().index_add_(0, rows_groups, kernel)
            sums.index_add_(1, right.groups[start : start + _ROWS_AT_ONCE], by_left)
    return sums


def _within(sums: Float[Tensor, "groups groups"], sizes: Float[Tensor, "groups"], weights: Tensor) -> Tensor:
    """The mean of the kernel over the pairs of one set."""
    pairs = torch.outer(sizes, sizes) - torch.diag(sizes)
    times = torch.outer(weights, weights)
    times.diagonal().copy_(weights)
    number = (times * pairs).sum()
    if number <= 0:
        raise ValueError("a set takes two vectors")
    return (times * sums).sum() / number
