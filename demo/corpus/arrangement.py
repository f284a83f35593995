"""Arranges a score as music of a given length, with the facts that its captions state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from demo.corpus.excerpt import (
    BEATS_PER_MINUTE,
    ONSETS_PER_SECOND,
    TempoClass,
    excerpt,
    felt_beat,
)
from demo.corpus.harmony import key_of
from demo.corpus.orchestration import Voice, orchestrate
from demo.corpus.scores import Mode, Note, Score

Density = Literal["sparse", "moderate", "dense"]
Register = Literal["low", "middle", "high"]
Class = TypeVar("Class", bound=str)

_DENSITY_BOUNDS = (2.2, 5.0)  # onsets of all voices per second
_REGISTER_BOUNDS = (53, 76)  # MIDI keys, of the first voice
_LONGEST_SILENCE_SECONDS = 2.5
FEWEST_NOTES = 4


@dataclass(frozen=True)
class Arrangement:
    """Voices with their notes in seconds, and facts about them."""

    source: str
    voices: tuple[Voice, ...]
    bpm: int
    tempo: TempoClass
    mode: Mode
    density: Density
    register: Register


def arrange(
    score: Score, tempo: TempoClass, mode: Mode, seconds: float, rng: np.random.Generator
) -> Arrangement | None:
    """`seconds` of a score in a random orchestration.

    None if the excerpt is not clearly in the mode, has too few notes or a long silence, or where its notes are too
    slow or too quick for the tempo.
    """
    beat = felt_beat(score)
    bpm = int(rng.integers(*BEATS_PER_MINUTE[tempo], endpoint=True))
    quarter = 60 / bpm / beat
    parts = excerpt(score, seconds / quarter, rng)
    key = key_of([note for part in parts for note in part])
    if key is None or key.mode != mode or score.mode not in (None, mode):
        return None
    voices = [_in_seconds(voice, quarter, seconds) for voice in orchestrate(parts, key, beat, rng)]
    pace = len(_onsets(voices[:1])) / seconds
    onsets = _onsets(voices)
    slowest, quickest = ONSETS_PER_SECOND[tempo]
    gaps = np.diff([0.0, *onsets, seconds])
    if not slowest <= pace <= quickest or gaps.max() > _LONGEST_SILENCE_SECONDS:
        return None
    if min(len(voice.notes) for voice in voices) < FEWEST_NOTES:
        return None
    density, register = density_of(voices, seconds), register_of(voices)
    return Arrangement(score.source, tuple(voices), bpm, tempo, mode, density, register)


def density_of(voices: Sequence[Voice], seconds: float) -> Density:
    """How many notes begin in a second, in a word."""
    return _classed(len(_onsets(voices)) / seconds, _DENSITY_BOUNDS, ("sparse", "moderate", "dense"))


def register_of(voices: Sequence[Voice]) -> Register:
    """How high the first voice is, in a word."""
    middle = float(np.median([note.pitch for note in voices[0].notes]))
    return _classed(middle, _REGISTER_BOUNDS, ("low", "middle", "high"))


def _in_seconds(voice: Voice, quarter: float, seconds: float) -> Voice:
    notes = [Note(note.onset * quarter, note.length * quarter, note.pitch) for note in voice.notes]
    return Voice(voice.instrument, tuple(note for note in notes if note.onset < seconds), voice.leads)


def _onsets(voices: Sequence[Voice]) -> list[float]:
    return sorted({round(note.onset, 2) for voice in voices for note in voice.notes})


def _classed(value: float, bounds: tuple[float, float], classes: tuple[Class, Class, Class]) -> Class:
    """The first class below the first bound, the last one from the second bound on."""
    return classes[sum(value >= bound for bound in bounds)]
