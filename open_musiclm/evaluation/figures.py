"""A figure of an evaluation: a value with its interval, its number of clips, and its limits."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.metrics.intervals import Estimate

Better = Literal["lower", "higher", "neither"]
PerClip = dict[str, Float[Tensor, "clips"]]


@dataclass(frozen=True)
class Figure:
    """`value` is None if there is none, for the reason in `note`; else `note` tells the convention.

    `low` and `high` are the ends of the 95 % interval. `warning` says why the value is uncertain.
    """

    key: str
    title: str
    value: float | None
    low: float | None
    high: float | None
    better: Better
    clips: int
    reference_clips: int | None
    note: str
    warning: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All but the key."""
        return {name: value for name, value in asdict(self).items() if name != "key"}


@dataclass(frozen=True)
class Metric:
    """What a figure is, whatever its value."""

    key: str
    title: str
    better: Better
    note: str

    def with_note(self, more: str) -> "Metric":
        """The same with more in its note."""
        return replace(self, note=self.note + more)

    def figure(
        self, estimate: Estimate, clips: int, reference_clips: int | None = None, warning: str | None = None
    ) -> Figure:
        """The figure with a value; absent if that is NaN or infinite. An interval needs two finite ends."""
        if not math.isfinite(estimate.value):
            return self.absent(f"none: the result is {estimate.value}, which is no number", clips, reference_clips)
        known = all(end is not None and math.isfinite(end) for end in (estimate.low, estimate.high))
        ends = (estimate.value, *((estimate.low, estimate.high) if known else (None, None)))
        return Figure(self.key, self.title, *ends, self.better, clips, reference_clips, self.note, warning)

    def absent(self, reason: str, clips: int, reference_clips: int | None = None) -> Figure:
        """The figure of this metric without a value, and why."""
        return Figure(self.key, self.title, None, None, None, self.better, clips, reference_clips, reason)

    def try_figure(
        self, make: Callable[[], Estimate], clips: int, reference_clips: int | None = None, warning: str | None = None
    ) -> Figure:
        """The figure of what `make` gives; absent where it raises ValueError: the sets are too small."""
        try:
            return self.figure(make(), clips, reference_clips, warning)
        except ValueError as error:
            return self.absent(f"none: {error}", clips, reference_clips)


def median(values: Float[Tensor, "_"]) -> Float[Tensor, ""]:
    """The median, the mean of the two middle values where their number is even."""
    return torch.quantile(values.double(), 0.5) if len(values) <= _LARGEST_QUANTILE else values.double().median()


_LARGEST_QUANTILE = 1 << 24  # torch.quantile takes no more
