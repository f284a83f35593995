"""Cuts an excerpt of a given length out of a score; says at which tempi it may be played."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from demo.corpus.scores import Note, Score

TempoClass = Literal["slow", "medium", "fast"]
Parts = tuple[tuple[Note, ...], ...]

# Beats per minute to choose from, and the onsets of the top part per second that people perceive as this tempo: a slow
# beat full of quick notes sounds fast, so the classes hardly overlap in onsets per second.
BEATS_PER_MINUTE: dict[TempoClass, tuple[int, int]] = {"slow": (52, 74), "medium": (86, 112), "fast": (132, 172)}
TEMPI: tuple[TempoClass, ...] = ("slow", "medium", "fast")
ONSETS_PER_SECOND: dict[TempoClass, tuple[float, float]] = {
    "slow": (0.6, 1.9),
    "medium": (1.8, 3.7),
    "fast": (3.6, 9.0),
}
_ONSETS_PER_BEAT = (0.75, 3.1)
_TRANSPOSITIONS = (-5, 7)


def felt_beat(score: Score) -> float:
    """The beat in quarter notes: the meter's, halved or doubled until it holds about one to three onsets."""
    onsets = {note.onset for note in score.parts[0]}
    beat = score.beat
    per_quarter = len(onsets) / max(max(onsets) - min(onsets), 1.0)
    while per_quarter * beat > _ONSETS_PER_BEAT[1]:
        beat /= 2
    while per_quarter * beat < _ONSETS_PER_BEAT[0]:
        beat *= 2
    return beat


def excerpt(score: Score, quarters: float, rng: np.random.Generator) -> Parts:
    """The parts between a random bar line and `quarters` later, in a random transposition, onsets from 0.

    A score that is shorter is played again from its beginning.
    """
    first = min(note.onset for part in score.parts for note in part)
    last = max(note.end for part in score.parts for note in part)
    bars = int(max(last - first - quarters, 0) / score.bar)
    start = first + score.bar * int(rng.integers(bars + 1))
    period = math.ceil((last - first) / score.beat) * score.beat
    shift = int(rng.integers(*_TRANSPOSITIONS))
    parts = [
        _between(_repeated(part, period, start + quarters), start, start + quarters, shift) for part in score.parts
    ]
    onset = min((note.onset for part in parts for note in part), default=0.0)
    return tuple(tuple(Note(n.onset - onset, n.length, n.pitch) for n in part) for part in parts if part)


def _repeated(part: Sequence[Note], period: float, until: float) -> list[Note]:
    rounds = math.ceil(max(until - part[0].onset, period) / period)
    return [Note(n.onset + period * again, n.length, n.pitch) for again in range(rounds) for n in part]


def _between(notes: Sequence[Note], start: float, end: float, shift: int) -> tuple[Note, ...]:
    return tuple(
        Note(note.onset - start, min(note.length, end - note.onset), note.pitch + shift)
        for note in notes
        if start <= note.onset < end
    )
