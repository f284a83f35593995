"""Sounds with captions and tags: JSON lines (as the demo corpus has them), CSV, and FMA's tracks.csv."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from open_musiclm.audio import find_sounds
from open_musiclm.config.json_files import read_json_lines, shown
from open_musiclm.data.caption_lines import CAPTIONS_NAME
from open_musiclm.data.fma import read_tracks
from open_musiclm.errors import UserError
from open_musiclm.text_files import open_regular

_FILE_KEYS = ("file", "path", "filename")
_CAPTION_KEYS = ("caption", "captions")
_SEPARATOR = ";"
_FMA_GENRE = ("track", "genre_top")
_FMA_COLUMNS = (_FMA_GENRE, ("artist", "id"), ("track", "language_code"), ("set", "split"))
_LONGEST_FIELD = 1 << 20


@dataclass(frozen=True)
class LabelledSound:
    """A sound file, the texts that describe it, and its tags; a tag may have several values."""

    path: Path
    captions: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]]


def read_labels(folder: Path, labels: Path | None) -> list[LabelledSound]:
    """The sounds that `labels` describes, by default captions.jsonl in `folder`; files are relative to `folder`.

    JSON lines: {"file": ..., "caption": ..., "captions": [...], any tag: ...}. CSV: the same columns, several values
    of a cell separated by semicolons. FMA's tracks.csv: the sounds below `folder` named by their track ids; their
    genre, the artist, the language and the split are tags, "<genre> music" is the caption. Lines of the same file add
    to each other. Raises UserError.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of sound")
    path = labels or folder / CAPTIONS_NAME
    if labels is None and not path.exists():
        raise UserError(f"{folder}: holds no {CAPTIONS_NAME}; name a file of captions or tags with --labels")
    kind = path.suffix.lower()
    if path.name == "tracks.csv":
        sounds = _merged(_fma(folder, path))
    elif kind in (".jsonl", ".ndjson"):
        sounds = _merged(_entry(folder, entry, place) for place, entry in read_json_lines(path))
    elif kind == ".csv":
        sounds = _merged(_entry(folder, entry, place) for place, entry in _csv_lines(path))
    else:
        raise UserError(f"{path}: expected JSON lines (.jsonl), a table (.csv) or FMA's tracks.csv")
    if not sounds:
        raise UserError(f"{path}: describes no sound")
    return sounds


def _merged(sounds: Iterable[LabelledSound]) -> list[LabelledSound]:
    found: dict[Path, LabelledSound] = {}
    for sound in sounds:
        before = found.get(sound.path)
        if before is not None:
            captions = tuple(dict.fromkeys((*before.captions, *sound.captions)))
            tags = {
                name: tuple(dict.fromkeys((*before.tags.get(name, ()), *sound.tags.get(name, ()))))
                for name in (*before.tags, *sound.tags)
            }
            sound = LabelledSound(sound.path, captions, tags)
        found[sound.path] = sound
    return list(found.values())


def _entry(folder: Path, entry: object, place: str) -> LabelledSound:
    """The sound of a line. Raises UserError that names the line."""
    if not isinstance(entry, dict):
        raise UserError(f'{place}: expected {{"file": "...", "caption": "..."}}, found {shown(entry)}')
    key = next((key for key in _FILE_KEYS if key in entry), "file")
    file = entry.get(key)
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        raise UserError(f'{place}: "{key}": expected the path of a sound, found {shown(file)}')
    captions = [text for name in _CAPTION_KEYS for text in _texts(entry.get(name))]
    tags = {name: _texts(value) for name, value in entry.items() if name not in (key, *_CAPTION_KEYS)}
    return LabelledSound(
        folder / file, tuple(dict.fromkeys(captions)), {name: values for name, values in tags.items() if values}
    )


def _texts(value: object) -> tuple[str, ...]:
    """A value, or a list of values, as texts; what is empty or nested says nothing."""
    values = value if isinstance(value, list) else [value]
    texts = (str(item).strip() for item in values if isinstance(item, str | int | float))
    return tuple(dict.fromkeys(text for text in texts if text))


def _csv_lines(path: Path) -> Iterator[tuple[str, dict[str, list[str] | str]]]:
    """The lines of a table as those of JSON lines, each after its place. Raises UserError."""
    with open_regular(path):
        pass
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, restkey="")
            if not set(_FILE_KEYS) & set(lines.fieldnames or ()):
                found = shown(lines.fieldnames or [])
                raise UserError(f"{path}: expected a column named {' or '.join(_FILE_KEYS)}, found {found}")
            for line in lines:
                whole = (*_FILE_KEYS, "caption")  # where a semicolon belongs to the text
                yield (
                    f"{path}:{lines.line_num}",
                    {
                        name: value if name in whole else value.split(_SEPARATOR)
                        for name, value in line.items()
                        if name and isinstance(value, str)
                    },
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of UTF-8 text: {error}") from error


def _fma(folder: Path, path: Path) -> Iterator[LabelledSound]:
    sounds = {int(sound.stem): sound for sound in find_sounds(folder) if sound.stem.isdecimal()}
    for track, values in read_tracks(path, _FMA_COLUMNS):
        if track in sounds:
            tags = {" ".join(column): (value,) for column, value in zip(_FMA_COLUMNS, values, strict=True) if value}
            genre = tags.get(" ".join(_FMA_GENRE), ())
            yield LabelledSound(sounds[track], tuple(f"{name.lower()} music" for name in genre), tags)
