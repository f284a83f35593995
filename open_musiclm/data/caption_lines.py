"""Lines of a captions.jsonl: {"file": "a.flac", "caption": "slow piano", "captions": ["..."]}, with further keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_musiclm.config.json_files import read_json_lines, shown
from open_musiclm.errors import UserError

CAPTIONS_NAME = "captions.jsonl"
LONGEST_CAPTION = 10_000  # characters; CLAP reads 77 tokens
_LONGEST_PATH = 4096  # of any file system


@dataclass(frozen=True)
class CaptionLine:
    """A line: its file as it is written there, its captions, at least one, and all its keys.

    Captions are those in "caption", then those in "captions"; each is a text or a list of texts. `place` is the
    file and the number of the line, for messages.
    """

    place: str
    file: str
    captions: tuple[str, ...]
    keys: Mapping[str, Any]


def read_caption_lines(path: Path) -> list[CaptionLine]:
    """The lines of a file that are not empty. Raises UserError that names the line."""
    return [_line(entry, place) for place, entry in read_json_lines(path)]


def _line(entry: object, place: str) -> CaptionLine:
    if not isinstance(entry, dict):
        raise UserError(f'{place}: expected {{"file": "...", "caption": "..."}}, found {shown(entry)}')
    file = entry.get("file")
    if not isinstance(file, str) or not file.strip() or "\0" in file or len(file) > _LONGEST_PATH:
        raise UserError(f'{place}: "file": expected the path of a sound, found {shown(file)}')
    captions = [*_texts(entry.get("caption"), place), *_texts(entry.get("captions"), place)]
    if not captions:
        raise UserError(f'{place}: lacks "caption", a sentence that describes {shown(file)}')
    return CaptionLine(place, file, tuple(dict.fromkeys(captions)), entry)


def _texts(found: object, place: str) -> list[str]:
    """The texts in the value of a key, without empty ones. Raises UserError."""
    texts = []
    for text in found if isinstance(found, list) else [] if found is None else [found]:
        if not isinstance(text, str):
            raise UserError(f"{place}: expected captions that are texts, found {shown(text)}")
        if len(text) > LONGEST_CAPTION:
            raise UserError(f"{place}: a caption of more than {LONGEST_CAPTION} characters")
        if text.strip():
            texts.append(text)
    return texts
