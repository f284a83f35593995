"""The learning rate over a run: it rises linearly, stays, and falls to zero along a cosine."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Counted in optimizer steps. After `constant_share` of `steps` the rate falls; with a share of 1 it stays."""

    rate: float
    warm_up_steps: int
    constant_share: float
    steps: int

    def at(self, step: int) -> float:
        """The rate of step `step` (from 0)."""
        risen = min((step + 1) / self.warm_up_steps, 1.0) if self.warm_up_steps else 1.0
        if self.constant_share == 1:
            return self.rate * risen
        begin = self.constant_share * self.steps
        fallen = min(max(step - begin, 0) / (self.steps - begin), 1.0)
        return self.rate * risen * (1 + math.cos(math.pi * fallen)) / 2
