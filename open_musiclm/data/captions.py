"""Captions of sound files: a text file beside each, the JSON of a generated wave, or a captions.jsonl in a folder.

`song.txt` beside `song.flac` has a caption on each line; the `prompt` in the JSON that generation writes beside a wave
is its caption, where there is no such text. The files of a `captions.jsonl` (`caption_lines`) are relative to its
folder. If both exist, all captions are used.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from open_musiclm.audio import find_named
from open_musiclm.config.json_files import read_json_object
from open_musiclm.config.prompt_text import GIVEN_SOUNDS
from open_musiclm.data.caption_lines import CAPTIONS_NAME, LONGEST_CAPTION, read_caption_lines
from open_musiclm.errors import UserError
from open_musiclm.text_files import read_lines

# Keys of a JSON whose prompt is no text of the whole wave: an edit, a continuation, a mixture, a style sound, a
# story.
_OTHER_PROMPTS = (*GIVEN_SOUNDS, "parts", "story")


@dataclass(frozen=True)
class CaptionedSound:
    """A sound file and the sentences that describe it; training uses a random one."""

    path: Path
    captions: tuple[str, ...]


def captions_of(paths: Sequence[Path], folder: Path) -> dict[Path, tuple[str, ...]]:
    """The captions of those of the sound files below `folder` that have any. Raises UserError for a damaged one."""
    found: dict[str, list[str]] = {}
    for file in find_named(folder, CAPTIONS_NAME):
        for sound in read_captions(file):
            found.setdefault(_key(sound.path), []).extend(sound.captions)
    result = {}
    for path in paths:
        captions = [*sidecar_captions(path), *found.get(_key(path), ())]
        if captions:
            result[path] = tuple(dict.fromkeys(captions))
    return result


def sidecar_captions(path: Path) -> list[str]:
    """The captions in the text file beside a sound, or the prompt that it was generated for; none without such a file.

    Raises UserError if the text file holds no text.
    """
    file = path.with_suffix(".txt")
    if not file.exists():
        return _prompt_of(path.with_suffix(".json"))
    captions = [line.strip() for _, line in read_lines(file) if line.strip()]
    if not captions:
        raise UserError(f"{file}: holds no caption; write a sentence that describes {path.name}, or remove this file")
    if any(len(caption) > LONGEST_CAPTION for caption in captions):
        raise UserError(f"{file}: more than {LONGEST_CAPTION} characters; this is no caption of {path.name}")
    return captions


def caption_problems(paths: Sequence[Path], folder: Path) -> list[str]:
    """A line for every fault of the captions below a folder: unreadable, empty, or without its sound file."""
    problems = []
    for path in paths:
        try:
            sidecar_captions(path)
        except UserError as error:
            problems.append(str(error))
    known = {_key(path) for path in paths}
    for file in find_named(folder, CAPTIONS_NAME):
        try:
            missing = [sound.path for sound in read_captions(file) if _key(sound.path) not in known]
        except UserError as error:
            problems.append(str(error))
            continue
        problems += [f"{file}: names {path}, which is no sound file below {folder}" for path in missing]
    return problems


def read_captions(path: Path) -> list[CaptionedSound]:
    """The sounds that a captions.jsonl describes; lines of the same file add to each other.

    Raises UserError that names the line.
    """
    captions: dict[Path, list[str]] = {}
    for line in read_caption_lines(path):
        captions.setdefault(path.parent / line.file, []).extend(line.captions)
    if not captions:
        raise UserError(f'{path}: holds no captions; expected lines of {{"file": "...", "caption": "..."}}')
    return [CaptionedSound(sound, tuple(dict.fromkeys(sentences))) for sound, sentences in captions.items()]


def _prompt_of(file: Path) -> list[str]:
    """The prompt in the JSON beside a generated wave, if it is such a file and the prompt is a plain text."""
    with suppress(UserError, OSError):
        content = read_json_object(file)
        prompt = content.get("prompt")
        if isinstance(prompt, str) and prompt.strip() and content.keys().isdisjoint(_OTHER_PROMPTS):
            return [prompt]
    return []


def _key(path: Path) -> str:
    """A key that is equal for paths of the same file: a name in captions.jsonl may contain `..` or a link."""
    return os.path.realpath(path)
