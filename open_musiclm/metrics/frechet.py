"""The Fréchet distance between two sets of embeddings (Heusel et al. 2017; of sound, FAD: Kilgour et al. 2019).

FAD-inf and FAD of a single song: Gui et al. 2024, with the conventions of their package fadtk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS_AT_ONCE = 8192
STEPS = 25
SMALLEST_SIZE = 500
LARGEST_SIZE = 50_000


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance (divided by `count` - 1) of `count` vectors, in float64."""

    count: int
    mean: Float[Tensor, "dim"]
    covariance: Float[Tensor, "dim dim"]


@dataclass(frozen=True)
class Moments:
    """Counts, sums and sums of outer products of the vectors of each group, about `shift`.

    What a Gaussian of any groups, each as often as wanted, is computed from: that is how a bootstrap resamples.
    """

    shift: Float[Tensor, "dim"]
    counts: Float[Tensor, "groups"]
    sums: Float[Tensor, "groups dim"]
    products: Float[Tensor, "groups dim dim"]

    @classmethod
    def of(
        cls, embeddings: Float[Tensor, "vectors dim"], groups: Int[Tensor, "vectors"] | None = None, count: int = 1
    ) -> "Moments":
        """The moments of `count` groups of vectors; without `groups` all are in the first. Memory is bounded."""
        dim = embeddings.shape[1]
        shift = sum((block.sum(0) for block in _blocks(embeddings)), torch.zeros(dim).double()) / len(embeddings)
        counts, sums = torch.zeros(count).double(), torch.zeros(count, dim).double()
        products = torch.zeros(count, dim, dim).double()
        for first, block in zip(range(0, len(embeddings), ROWS_AT_ONCE), _blocks(embeddings), strict=True):
            rows = block - shift
            own = torch.zeros(len(rows)).long() if groups is None else groups[first : first + ROWS_AT_ONCE]
            for group in own.unique().tolist():
                of_group = rows[own == group]
                counts[group] += len(of_group)
                sums[group] += of_group.sum(0)
                products[group] += of_group.T @ of_group
        return cls(shift, counts, sums, products)

    def gaussian(self, weights: Float[Tensor, "groups"] | None = None) -> Gaussian:
        """The Gaussian of all vectors, those of group g counted `weights[g]` times. Raises ValueError below two."""
        weights = torch.ones_like(self.counts) if weights is None else weights.double()
        count = float(weights @ self.counts)
        if count < 2:
            raise ValueError("a covariance takes two vectors")
        total = weights @ self.sums
        centred = torch.tensordot(weights, self.products, 1) - torch.outer(total, total) / count
        return Gaussian(round(count), self.shift + total / count, centred / (count - 1))


def gaussian_of(embeddings: Float[Tensor, "vectors dim"]) -> Gaussian:
    """The Gaussian of a set of vectors. Raises ValueError if there are fewer than two."""
    return Moments.of(embeddings).gaussian()


def frechet_distance(left: Float[Tensor, "clips dim"], right: Float[Tensor, "others dim"]) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)) of the means m and covariances C (divided by n - 1) of two sets.

    It is biased upwards in small sets, the more so the more dimensions: compare only sets of equal size.
    """
    return frechet_between(gaussian_of(left), gaussian_of(right))


def frechet_between(left: Gaussian, right: Gaussian) -> float:
    """The Fréchet distance between two Gaussians."""
    means = (left.mean - right.mean).square().sum()
    root = _square_root(left.covariance)
    product = torch.linalg.eigvalsh(root @ right.covariance @ root).clamp_min(0).sqrt().sum()
    return float(means + left.covariance.trace() + right.covariance.trace() - 2 * product)


def frechet_of_each(songs: Sequence[Float[Tensor, "_ dim"]], reference: Gaussian) -> Float[Tensor, "songs"]:
    """The distance of the Gaussian of each song's own vectors; NaN if it has fewer than two.

    A song of n vectors has a covariance of rank n - 1 at most, so that n x n matrices give its eigenvalues.
    """
    distances = []
    for song in songs:
        if len(song) < 2:
            distances.append(float("nan"))
            continue
        vectors = song.double()
        mean = vectors.mean(0)
        centred = (vectors - mean) / (len(vectors) - 1) ** 0.5
        values = torch.linalg.eigvalsh(centred @ reference.covariance @ centred.T).clamp_min(0)
        spread = centred.square().sum() + reference.covariance.trace() - 2 * values.sqrt().sum()
        distances.append(float((mean - reference.mean).square().sum() + spread))
    return torch.tensor(distances).double()


@dataclass(frozen=True)
class Extrapolation:
    """A line through distances of sets of different sizes over 1 / size: its value at 0, the standard error of that
    value, and its slope."""

    intercept: float
    standard_error: float
    slope: float
    sizes: list[int]
    distances: list[float]


def frechet_inf(
    embeddings: Float[Tensor, "vectors dim"], reference: Gaussian, rng: np.random.Generator
) -> Extrapolation:
    """FAD-inf: the distance that sets of any size would tend to, from sets of `STEPS` sizes drawn with replacement.

    Sizes go evenly from `SMALLEST_SIZE`, or half of the vectors where that is less, to all vectors, `LARGEST_SIZE` at
    most. Raises ValueError if there are fewer than eight vectors.
    """
    count = len(embeddings)
    if count < 8:
        raise ValueError("FAD-inf takes eight vectors")
    smallest, largest = min(SMALLEST_SIZE, count // 2), min(count, LARGEST_SIZE)
    sizes = [int(size) for size in np.linspace(smallest, largest, STEPS)]
    distances = []
    for size in sizes:
        drawn = torch.from_numpy(rng.integers(count, size=size)).sort().values  # in order: it may be a mapped file
        distances.append(frechet_between(gaussian_of(embeddings[drawn]), reference))
    return _line(sizes, distances)


def _line(sizes: list[int], distances: list[float]) -> Extrapolation:
    x, y = 1 / np.array(sizes), np.array(distances)
    spread = np.square(x - x.mean()).sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    intercept = float(y.mean() - slope * x.mean())
    squares = float(np.square(y - intercept - slope * x).sum())
    variance = squares / max(len(sizes) - 2, 1)
    error = float(np.sqrt(variance * (1 / len(sizes) + x.mean() ** 2 / spread)))
    return Extrapolation(intercept, error, slope, sizes, distances)


def _blocks(embeddings: Float[Tensor, "vectors dim"]) -> Iterator[Float[Tensor, "_ dim"]]:
    return (block.double() for block in embeddings.split(ROWS_AT_ONCE))


def _square_root(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
