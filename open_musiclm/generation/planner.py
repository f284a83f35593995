"""Plans windows along time, in ticks: pure functions of durations.

A tick is the shortest time that is whole in semantic tokens and in acoustic frames (0.04 s at 50 and 75 Hz). All
streams count ticks from the same instant, so that a window's semantic and acoustic tokens start together however many
windows came before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from open_musiclm.config import StageName
from open_musiclm.tokens import TokenStream

# The share of its window by which each stage advances; the rest is context from its own last tokens. That of the
# semantic stage is the default of the generation config's semantic_advance.
ADVANCE_FRACTION: dict[StageName, Fraction] = {
    "semantic": Fraction(1, 2),
    "coarse": Fraction(1, 2),
    "fine": Fraction(1),
}
_ROUNDING = 1e-6


@dataclass(frozen=True)
class TickGrid:
    """Seconds, ticks and frames of a model: `seconds_per_tick` is the config's `token_grid`."""

    seconds_per_tick: Fraction

    def ticks(self, seconds: float) -> int:
        """`seconds` in ticks, rounded up (exact for a config's windows)."""
        return math.ceil(seconds / self.seconds_per_tick - 1e-6)

    def whole_ticks(self, seconds: float) -> int:
        """`seconds` in ticks, rounded down."""
        return int(seconds / self.seconds_per_tick + 1e-6)

    def seconds(self, ticks: int) -> Fraction:
        """The duration of `ticks` in seconds."""
        return ticks * self.seconds_per_tick

    def first_frame(self, stream: TokenStream, tick: int) -> int:
        """The number of the frame that starts at a tick."""
        assert stream.frame_hz is not None
        return int(tick * self.seconds_per_tick * stream.frame_hz)

    def frames(self, stream: TokenStream, ticks: int) -> int:
        """The number of frames in a segment of `ticks`, without those that the tokenizer loses."""
        return stream.frames(self.seconds(ticks))


@dataclass(frozen=True)
class Window:
    """Ticks [start, end); the tokens of [start, context_end) exist already."""

    start: int
    context_end: int
    end: int


def plan_windows(start: int, end: int, window: int, context: int) -> list[Window]:
    """The windows that generate ticks [start, end), each with `context` ticks of earlier tokens.

    The last one starts earlier instead of being shorter, so that every window has the length of training. A window is
    shorter only if `end` is less than one window.
    """
    planned, reached = [], start
    while reached < end:
        first = max(0, min(reached - context, end - window))
        planned.append(Window(first, reached, min(first + window, end)))
        reached = planned[-1].end
    return planned


def split_windows(windows: Sequence[Window], ticks: Sequence[int]) -> list[Window]:
    """The windows, split at those of `ticks` that lie inside them; all parts of a window have its start."""
    parts = []
    for window in windows:
        cuts = sorted({tick for tick in ticks if window.context_end < tick < window.end})
        bounds = [window.context_end, *cuts, window.end]
        parts += [Window(window.start, reached, end) for reached, end in pairwise(bounds)]
    return parts


def advance(stage: StageName, window: int, share: float | None = None) -> int:
    """The ticks by which a stage advances over its `window` ticks: `share` of it, by default `ADVANCE_FRACTION`."""
    return max(int(window * (ADVANCE_FRACTION[stage] if share is None else share) + _ROUNDING), 1)


@dataclass(frozen=True)
class Gap:
    """Ticks [start, end) of a sound to regenerate, with its context in [origin, start) and in [end, known_end).

    If the sound ends with the gap, `known_end` is `end`.
    """

    origin: int
    start: int
    end: int
    known_end: int


def plan_gap(start: int, end: int, sound: int, window: int, context: int, following: int) -> Gap:
    """The gap of ticks [start, end) in a sound of `sound` whole ticks.

    The context before it fills the rest of a window and has at least `context` ticks; after it at most `following`.
    """
    before = max(context, window - (end - start) - following)
    return Gap(max(start - before, 0), start, end, max(min(end + following, sound), end))
