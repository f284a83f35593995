"""Bootstrap confidence intervals of 95 % (Efron and Tibshirani 1993)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MOST_GROUPS = 100
_NORMAL_QUANTILE = 1.959964
_TAIL = 0.025


@dataclass(frozen=True)
class Estimate:
    """A value, and the ends of its interval; None if there is too little to resample."""

    value: float
    low: float | None = None
    high: float | None = None


def percentile_interval(
    values: Float[Tensor, "clips"],
    statistic: Callable[[Float[Tensor, "_"]], Float[Tensor, ""]],
    replicates: int,
    rng: np.random.Generator,
) -> Estimate:
    """A statistic of one number per clip, clips resampled: the 2.5th and 97.5th percentile."""
    value = float(statistic(values))
    if len(values) < 2:
        return Estimate(value)
    drawn = [float(statistic(values[_resampled(len(values), rng)])) for _ in range(replicates)]
    low, high = np.quantile(drawn, (_TAIL, 1 - _TAIL))
    return Estimate(value, float(low), float(high))


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


def _resampled(count: int, rng: np.random.Generator) -> Int[Tensor, "clips"]:
    return torch.from_numpy(rng.integers(count, size=count))
