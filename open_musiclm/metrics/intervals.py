"""Bootstrap confidence intervals of 95 % (Efron and Tibshirani 1993)."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

REPLICATES = 1000
MOST_GROUPS = 100
_NORMAL_QUANTILE = 1.959964
_TAIL = 0.025


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its interval, and how many clips or groups were resampled; None if there is too little."""

    value: float
    low: float | None = None
    high: float | None = None
    groups: int | None = None


def percentile_interval(
    values: Float[Tensor, "clips"],
    statistic: Callable[[Float[Tensor, "_"]], Float[Tensor, ""]],
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """A statistic of one number per clip, clips resampled: the 2.5th and 97.5th percentile.

    Clips of one group, such as a prompt, depend on each other; with `groups`, that of each clip, whole groups are
    resampled.
    """
    members: dict[Hashable, list[int]] = {}
    for clip, group in enumerate(range(len(values)) if groups is None else groups):
        members.setdefault(group, []).append(clip)
    places = [torch.tensor(own) for own in members.values()]
    return _bootstrap(
        lambda chosen: float(statistic(values[torch.cat([places[number] for number in chosen])])),
        len(places),
        rng,
        replicates,
    )


def mean_interval(
    values: Float[np.ndarray, "values"], groups: Int[np.ndarray, "values"] | None, rng: np.random.Generator
) -> Estimate:
    """The mean of all values, whole groups resampled: values of one sound, say. Without groups each value is one."""
    numbers = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(numbers, weights=values), np.bincount(numbers)
    return _bootstrap(lambda chosen: float(sums[chosen].sum() / counts[chosen].sum()), len(sums), rng, REPLICATES)


def normal_interval(value: float, replicates: list[float], least: float = -float("inf")) -> Estimate:
    """The value plus and minus 1.96 standard deviations of its replicates, no lower than `least`.

    For distances, which resampling shifts upwards: sets with copies have less variety. Their spread is not shifted.
    """
    if len(replicates) < 2:
        return Estimate(value)
    half = _NORMAL_QUANTILE * float(np.std(replicates, ddof=1))
    return Estimate(value, max(value - half, least), value + half)


def groups_of(clips: int, rng: np.random.Generator) -> Int[Tensor, "clips"]:
    """A group for each clip, what a bootstrap resamples: of its own, or one of `MOST_GROUPS` of like size at random."""
    return torch.from_numpy(rng.permutation(clips) % MOST_GROUPS) if clips > MOST_GROUPS else torch.arange(clips)


def resampling_weights(groups: int, rng: np.random.Generator) -> Float[Tensor, "groups"]:
    """How often each group occurs in one replicate."""
    return torch.from_numpy(rng.multinomial(groups, np.full(groups, 1 / groups))).double()


def _bootstrap(
    statistic: Callable[[Int[np.ndarray, "groups"]], float], groups: int, rng: np.random.Generator, replicates: int
) -> Estimate:
    """A statistic of the groups with these numbers: its value for all, and its percentiles over random choices."""
    value = statistic(np.arange(groups))
    if groups < 2:
        return Estimate(value, groups=groups)
    found = [statistic(rng.integers(groups, size=groups)) for _ in range(replicates)]
    low, high = np.quantile(found, (_TAIL, 1 - _TAIL))
    return Estimate(value, float(low), float(high), groups)
