"""Finds the key of notes, and chords for a melody."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo.corpus.scores import Mode, Note

# How well each step above the tonic fits a key: Krumhansl and Kessler's probe tone ratings (1982).
_PROFILES: dict[Mode, tuple[float, ...]] = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# Triads above the tonic, (steps, how welcome it is where several fit).
_TRIADS: dict[Mode, tuple[tuple[tuple[int, int, int], float], ...]] = {
    "major": (((0, 4, 7), 0.3), ((7, 11, 14), 0.2), ((5, 9, 12), 0.15), ((9, 12, 16), 0.05), ((2, 5, 9), 0.0)),
    "minor": (((0, 3, 7), 0.3), ((7, 11, 14), 0.15), ((5, 8, 12), 0.1), ((3, 7, 10), 0.05), ((10, 14, 17), 0.1)),
}
_CLEAR_MARGIN = 0.06
_LOWEST_CHORD_KEY = 55


@dataclass(frozen=True)
class Key:
    """Tonic as a pitch class (0 is C) and mode."""

    tonic: int
    mode: Mode


@dataclass(frozen=True)
class Chord:
    """A triad from `onset` (in quarter notes): its root as a pitch class, its MIDI keys around middle C."""

    onset: float
    root: int
    keys: tuple[int, ...]


def key_of(notes: Sequence[Note]) -> Key | None:
    """The key whose profile correlates best with how long each pitch class sounds; None if the best major and
    the best minor key are too close to tell."""
    weights = np.zeros(12)
    for note in notes:
        weights[note.pitch % 12] += note.length
    if np.count_nonzero(weights) < 4 or np.ptp(weights) == 0:
        return None
    best: dict[Mode, tuple[float, int]] = {}
    for mode, profile in _PROFILES.items():
        fits = [float(np.corrcoef(weights, np.roll(profile, tonic))[0, 1]) for tonic in range(12)]
        best[mode] = max((fit, tonic) for tonic, fit in enumerate(fits))
    likelier: Mode = "major" if best["major"][0] > best["minor"][0] else "minor"
    clear = abs(best["major"][0] - best["minor"][0]) >= _CLEAR_MARGIN
    return Key(best[likelier][1], likelier) if clear else None


def chords_for(melody: Sequence[Note], key: Key, span: float, until: float) -> list[Chord]:
    """The triad that fits best for every `span` quarter notes of a melody."""
    chords = []
    for onset in np.arange(0, until, span):
        lengths = np.zeros(12)
        for note in melody:
            lengths[note.pitch % 12] += max(min(note.end, onset + span) - max(note.onset, onset), 0) / span
        triads = _TRIADS[key.mode]
        fits = [sum(lengths[(key.tonic + step) % 12] for step in steps) + welcome for steps, welcome in triads]
        root, *others = triads[int(np.argmax(fits))][0]
        classes = [(key.tonic + step) % 12 for step in (root, *others)]
        keys = tuple(sorted(_LOWEST_CHORD_KEY + (pitch - _LOWEST_CHORD_KEY) % 12 for pitch in classes))
        chords.append(Chord(float(onset), classes[0], keys))
    return chords
