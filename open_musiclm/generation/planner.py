"""Windows along time (DESIGN section 4), in ticks.

A tick is the shortest time that is whole in semantic tokens and in acoustic frames (0.04 s at 50 and 75 Hz).
All tracks count ticks from one instant, so that a window's semantic and acoustic tokens start together
however many windows came before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import ModelConfig, StageName

# The share of its window by which each stage steps on; the rest is context from its own last tokens.
STEP_FRACTION: dict[StageName, Fraction] = {
    "semantic": Fraction(1, 2),
    "coarse": Fraction(1, 2),
    "fine": Fraction(1),
}

Ids = Int[Tensor, "batch _ quantizers"]


@dataclass(frozen=True)
class Rate:
    """Time steps of tokens per tick, and how many of a stretch's last ones its backbone's convolutions lose."""

    per_tick: int
    lost: int

    def steps(self, ticks: int) -> int:
        """The number of time steps of a stretch that begins at a tick and lasts `ticks`."""
        return max(self.per_tick * ticks - self.lost, 0)


def semantic_rate(config: ModelConfig) -> Rate:
    """MERT's tokens: the convolutions lose the last frame of a stretch."""
    return Rate(int(config.hubert_kmeans_cfg.output_hz * config.token_grid), lost=1)


def acoustic_rate(config: ModelConfig) -> Rate:
    """EnCodec's frames."""
    return Rate(int(config.encodec_cfg.output_hz * config.token_grid), lost=0)


def ticks_in(seconds: float, config: ModelConfig) -> int:
    """The fewest ticks that last `seconds` (exactly so for a config's windows)."""
    return math.ceil(seconds / config.token_grid - 1e-6)


@dataclass(frozen=True)
class Window:
    """Ticks [start, end) of which [start, known) are there already."""

    start: int
    known: int
    end: int


def plan_windows(known: int, total: int, window: int, context: int) -> list[Window]:
    """The windows that extend `known` ticks to `total`, each with `context` ticks of what is there.

    The last one begins earlier instead of being shorter, so that every window has the length that training
    saw; only where `total` itself is shorter than a window does it end early.
    """
    planned = []
    while known < total:
        start = max(0, min(known - context, total - window))
        planned.append(Window(start, known, min(start + window, total)))
        known = planned[-1].end
    return planned


def plan_steps(known: int, total: int, window: int, step: int) -> list[Window]:
    """The windows that extend `known` ticks to `total` by `step` at a time, each with as much context as it has room
    for. Up to the first `window` ticks a causal stage makes what it makes without steps, but can be chosen from."""
    ends = [*range(known + step, total, step), total] if known < total else []
    starts = [known, *ends[:-1]]
    return [Window(max(end - window, 0), start, end) for start, end in zip(starts, ends, strict=False)]


@runtime_checkable
class Track(Protocol):
    """Tokens along time that a later stage is conditioned on."""

    def between(self, start: int, end: int) -> Ids:
        """The tokens of ticks [start, end), all rows of the batch."""


@dataclass
class HeardTrack:
    """Tokens of a given wave: every stretch is tokenized on its own, as training does with its crops."""

    tokens_between: Callable[[int, int], Ids]

    def between(self, start: int, end: int) -> Ids:
        return self.tokens_between(start, end)


class GeneratedTrack:
    """One stage's tokens, extended window by window as far as somebody asks for them.

    What has been made waits in the main memory: the device holds what a window needs, however long the piece.
    """

    def __init__(
        self,
        rate: Rate,
        windows: list[Window],
        known_ids: Ids,
        extend: Callable[[Window, Ids, int], Ids],
    ) -> None:
        """`extend(window, context_ids, steps)` gives the next `steps` time steps of the window after its context."""
        self.rate = rate
        self.waiting = list(reversed(windows))
        self.device = known_ids.device
        self.ids = known_ids.cpu()
        self.extend = extend

    def ends(self) -> list[int]:
        """Where the windows end that are still to be made."""
        return [window.end for window in reversed(self.waiting)]

    def choose(self, rows: Int[Tensor, "chosen"]) -> None:
        """Puts what these rows have made, a row as often as it is named, in the place of what all have."""
        self.ids = self.ids[rows]

    def between(self, start: int, end: int) -> Ids:
        """The tokens of ticks [start, end); the windows up to there are generated first."""
        first, last = self.rate.per_tick * start, self.rate.per_tick * start + self.rate.steps(end - start)
        while self.ids.shape[1] < last:
            window = self.waiting.pop()
            begin = self.rate.per_tick * window.start
            steps = begin + self.rate.steps(window.end - window.start) - self.ids.shape[1]
            made = self.extend(window, self.ids[:, begin:].to(self.device), steps)
            self.ids = torch.cat((self.ids, made.cpu()), dim=1)
        return self.ids[:, first:last].to(self.device)
