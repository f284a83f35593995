"""Gives the parts of a score, or a melody with a new accompaniment, to instruments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from demo.corpus.excerpt import Parts
from demo.corpus.harmony import Chord, Key, chords_for
from demo.corpus.instruments import INSTRUMENTS, Instrument
from demo.corpus.scores import Note

MOST_INSTRUMENTS = 4
_SHARE_OF_COUNT = (0.72, 0.15, 0.08, 0.05)
_SHARE_OF_TOP_PARTS = 0.6  # of the clips of one instrument, from scores of several parts
_MELODIC_WEIGHT = 3
_BASS_OCTAVE = 36
_CHORD_SPAN_BEATS = 2
_OCTAVE = 12


@dataclass(frozen=True)
class Voice:
    """What one instrument plays; `leads` says that it has the melody, or an equal share in the parts."""

    instrument: Instrument
    notes: tuple[Note, ...]
    leads: bool


def orchestrate(parts: Parts, key: Key, beat: float, rng: np.random.Generator) -> list[Voice]:
    """One to four voices, each by another instrument, the highest part first."""
    count = 1 + int(rng.choice(MOST_INSTRUMENTS, p=_SHARE_OF_COUNT))
    if count == 1 and len(parts) > 1 and rng.random() < _SHARE_OF_TOP_PARTS:
        return [_voice(parts[0], [], rng, suits=_any)]
    if len(parts) == 1:
        return _accompanied(parts[0], key, beat, count, rng)
    voices: list[Voice] = []
    for group in np.array_split(np.arange(len(parts)), min(count, len(parts))):
        notes = [note for part in group for note in parts[part]]
        voices.append(_voice(notes, voices, rng, suits=_any if len(group) == 1 else _plays_chords))
    return voices


def _accompanied(melody: Sequence[Note], key: Key, beat: float, count: int, rng: np.random.Generator) -> list[Voice]:
    """A melody alone, over its own chords, or with chords, a bass and a second instrument an octave lower."""
    chords = chords_for(melody, key, beat * _CHORD_SPAN_BEATS, max(note.end for note in melody))
    backing = _broken(chords, beat) if rng.random() < 0.5 else _block(chords, beat)
    if count == 1 and rng.random() < 0.5:
        below = [Note(note.onset, note.length, note.pitch - _OCTAVE) for note in backing]
        return [_voice([*melody, *below], [], rng, suits=_plays_chords)]
    voices = [_voice(melody, [], rng, suits=_any)]
    if count >= 4:
        voices.append(_voice(melody, voices, rng, suits=_any))
    if count >= 3 or (count == 2 and rng.random() < 0.6):
        voices.append(_voice(backing, voices, rng, suits=_plays_chords, leads=False))
    if count >= 2 and len(voices) < count:
        bass = [Note(c.onset, beat * _CHORD_SPAN_BEATS, _BASS_OCTAVE + c.root) for c in chords]
        voices.append(_voice(bass, voices, rng, suits=_plays_bass, leads=False))
    return voices


def _voice(
    notes: Sequence[Note],
    others: Sequence[Voice],
    rng: np.random.Generator,
    suits: Callable[[Instrument], bool],
    leads: bool = True,
) -> Voice:
    """Notes for a random suitable instrument that none of the others has, of a random family, in a random octave."""
    taken = {voice.instrument.name for voice in others}
    choice = [instrument for instrument in INSTRUMENTS if suits(instrument) and instrument.name not in taken]
    families = sorted({instrument.family for instrument in choice})
    family = families[rng.integers(len(families))]
    choice = [instrument for instrument in choice if instrument.family == family]
    weights = np.array([_weight(instrument) for instrument in choice])
    instrument = choice[rng.choice(len(choice), p=weights / weights.sum())]
    shifts = range(-5 * _OCTAVE, 5 * _OCTAVE + 1, _OCTAVE)
    outside = [sum(not _in_range(note.pitch + shift, instrument) for note in notes) for shift in shifts]
    best = [shift for shift, count in zip(shifts, outside, strict=True) if count == min(outside)]
    shift = best[rng.integers(len(best))]
    moved = {Note(note.onset, note.length, _folded(note.pitch + shift, instrument)) for note in notes}
    return Voice(instrument, tuple(sorted(moved, key=lambda note: (note.onset, note.pitch, note.length))), leads)


def _block(chords: Sequence[Chord], beat: float) -> list[Note]:
    return [Note(c.onset, beat * _CHORD_SPAN_BEATS, pitch) for c in chords for pitch in c.keys]


def _broken(chords: Sequence[Chord], beat: float) -> list[Note]:
    pattern = (0, 2, 1, 2)
    step = beat * _CHORD_SPAN_BEATS / len(pattern)
    return [Note(c.onset + step * place, step, c.keys[key]) for c in chords for place, key in enumerate(pattern)]


def _in_range(pitch: int, instrument: Instrument) -> bool:
    return instrument.lowest <= pitch <= instrument.highest


def _folded(pitch: int, instrument: Instrument) -> int:
    """The pitch, moved by octaves into the instrument's range."""
    if pitch < instrument.lowest:
        return pitch + _OCTAVE * -(-(instrument.lowest - pitch) // _OCTAVE)
    return pitch - _OCTAVE * max(-(-(pitch - instrument.highest) // _OCTAVE), 0)


def _weight(instrument: Instrument) -> int:
    """Instruments that do not play chords are chosen more often for melodies, so that none is rare.

    Bass parts do not count here: few clips have one.
    """
    return 1 if instrument.plays_chords else _MELODIC_WEIGHT


def _any(instrument: Instrument) -> bool:
    return instrument.family != "bass"


def _plays_chords(instrument: Instrument) -> bool:
    return instrument.plays_chords


def _plays_bass(instrument: Instrument) -> bool:
    return instrument.plays_bass
