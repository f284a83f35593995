"""Reads scores of the corpus that music21 ships as plain lists of notes."""

import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from open_musiclm.errors import UserError

Mode = Literal["major", "minor"]
MODES: tuple[Mode, ...] = ("major", "minor")
# Relative frequencies of the collections; tunes in one voice and works in several are about equally frequent.
COLLECTIONS = {
    "ryansMammoth": 18,
    "oneills1850": 14,
    "airdsAirs": 8,
    "essenFolksong": 10,
    "bach": 26,
    "palestrina": 6,
    "monteverdi": 4,
    "trecento": 3,
    "haydn": 3,
    "mozart": 2,
    "corelli": 1,
}
_SUFFIXES = (".abc", ".krn", ".mxl", ".xml", ".musicxml")
_LARGEST_FILE_BYTES = 400_000
_ABC_KEY = re.compile(r"(?mi)^K:\s*[A-G][#b]?\s*(?P<minor>m(?!aj|ix)|aeo|dor|phr)?")


@dataclass(frozen=True)
class Note:
    """A note of a part: onset and length in quarter notes, pitch as MIDI key."""

    onset: float
    length: float
    pitch: int

    @property
    def end(self) -> float:
        return self.onset + self.length


@dataclass(frozen=True)
class Score:
    """Parts from the highest to the lowest; a beat and a bar in quarter notes; the mode that the key names, if any."""

    source: str
    parts: tuple[tuple[Note, ...], ...]
    beat: float
    bar: float
    mode: Mode | None


def draw_score(mode: Mode, rng: np.random.Generator) -> Score | None:
    """A random score of a random collection, of `mode` where its text tells; None if music21 cannot make notes
    of it. Raises UserError if music21 is not installed."""
    names = list(COLLECTIONS)
    weights = np.array([COLLECTIONS[name] for name in names], dtype=float)
    collection = names[rng.choice(len(names), p=weights / weights.sum())]
    tunes = _tunes(collection)[mode]
    if tunes:
        source, text = tunes[rng.integers(len(tunes))]
        return _read(text, "abc", source)
    files = _files(collection)
    path = files[rng.integers(len(files))]
    return _read(path, None, f"{collection}/{path.name}")


@cache
def _files(collection: str) -> list[Path]:
    try:
        import music21
    except ImportError as error:
        raise UserError("music21, whose scores are played, is not installed: pip install music21") from error
    folder = Path(music21.__file__).parent / "corpus" / collection
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    return [path for path in found if path.stat().st_size <= _LARGEST_FILE_BYTES]


@cache
def _tunes(collection: str) -> dict[Mode, list[tuple[str, str]]]:
    """Source and ABC text of the tunes of a collection, by what their K: line says."""
    tunes: dict[Mode, list[tuple[str, str]]] = {"major": [], "minor": []}
    for path in _files(collection):
        if path.suffix == ".abc":
            text = path.read_text(encoding="utf-8", errors="replace")
            for number, tune in enumerate(re.split(r"(?m)^(?=X:)", text)[1:], 1):
                key = _ABC_KEY.search(tune)
                if key is not None:
                    tunes["minor" if key["minor"] else "major"].append((f"{collection}/{path.name}#{number}", tune))
    return tunes


def _read(content: Path | str, format: str | None, source: str) -> Score | None:
    from music21 import converter, exceptions21

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = converter.parse(content, format=format, forceSource=True, storePickle=False)
            parts = [_notes(part) for part in getattr(stream, "parts", ())]
            beat, bar = _meter(stream)
            mode = _mode(stream)
    except (exceptions21.Music21Exception, ValueError, AttributeError, IndexError, KeyError, TypeError):
        return None  # some of these thousands of files are broken, each in its own way; the caller tries another
    parts = sorted((part for part in parts if part), key=lambda part: -np.mean([note.pitch for note in part]))
    return Score(source, tuple(parts), beat, bar, mode) if parts else None


def _notes(part: Any) -> tuple[Note, ...]:
    """The notes of a part; tied ones are one. Grace notes and chord symbols are left out."""
    from music21 import harmony

    found: list[Note] = []
    sounding: dict[int, int] = {}  # by pitch, the place in `found` of the note that a tie may lengthen
    for element in part.flatten().notes:
        onset, length = float(element.offset), float(element.quarterLength)
        if length <= 0 or isinstance(element, harmony.ChordSymbol):
            continue
        for single in getattr(element, "notes", (element,)):
            pitch = single.pitch.midi
            place = sounding.get(pitch)
            tied = single.tie is not None and single.tie.type != "start"
            if tied and place is not None and abs(found[place].end - onset) < 1e-6:
                found[place] = Note(found[place].onset, found[place].length + length, pitch)
            else:
                sounding[pitch] = len(found)
                found.append(Note(onset, length, pitch))
    return tuple(sorted(found, key=lambda note: (note.onset, note.pitch)))


def _meter(stream: Any) -> tuple[float, float]:
    meter = stream.recurse().getElementsByClass("TimeSignature").first()
    return (float(meter.beatDuration.quarterLength), float(meter.barDuration.quarterLength)) if meter else (1.0, 4.0)


def _mode(stream: Any) -> Mode | None:
    key = stream.recurse().getElementsByClass("Key").first()
    return key.mode if key is not None and key.mode in ("major", "minor") else None
