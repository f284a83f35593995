"""Means with bootstrap confidence intervals (Efron 1979) over groups of values that belong to one sound."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from open_musiclm.analysis.options import SEED

_DRAWS = 1000
_LEVEL = 95.0


@dataclass(frozen=True)
class Estimate:
    """A mean, the bounds of its 95 % interval, and the number of groups that it is over."""

    value: float
    low: float
    high: float
    groups: int

    def shown(self, digits: int = 3) -> str:
        """The mean and its interval as text, `0.123 [0.100, 0.150]`."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean_estimate(values: Float[np.ndarray, "values"], groups: Int[np.ndarray, "values"] | None = None) -> Estimate:
    """The mean of all values; whole groups, by default single values, are drawn with replacement.

    The interval of fewer than two groups is that one number.
    """
    numbers = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(numbers, weights=values), np.bincount(numbers)
    rng = np.random.default_rng(SEED)
    means = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        chosen = rng.integers(len(sums), size=len(sums))
        means[draw] = sums[chosen].sum() / counts[chosen].sum()
    low, high = np.percentile(means, [50 - _LEVEL / 2, 50 + _LEVEL / 2])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), len(sums))
