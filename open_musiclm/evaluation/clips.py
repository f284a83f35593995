"""Finding the clips of a set, with the prompts or captions that are known of them."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from open_musiclm.audio import find_named, find_sounds
from open_musiclm.config.json_files import read_json, shown
from open_musiclm.data.caption_lines import CAPTIONS_NAME, CaptionLine, read_caption_lines
from open_musiclm.data.captions import sidecar_captions
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.generation.prompts.prompt_description import described_prompt
from open_musiclm.generation.prompts.story import AnyPrompt
from open_musiclm.text_files import read_lines

_LARGEST_DESCRIPTION = 1 << 20


@dataclass(frozen=True)
class EvaluationClip:
    """A sound file; the name of its prompt, and its beats per minute, where these are known.

    `described` is what a prompt that is no plain text stands for: a mixture, a style sound or a story, sounds as paths.
    """

    path: Path
    prompt: str | None
    bpm: float | None = None
    described: AnyPrompt | None = None

    @property
    def text(self) -> str | None:
        """The prompt, where it is a plain text."""
        return self.prompt if self.described is None else None


def find_clips(folder: Path, most: int | None = None, seed: int = 0) -> list[EvaluationClip]:
    """The sounds below a folder, sorted; of more than `most` so many drawn at random.

    Prompts are the first caption of a sound in a captions.jsonl, which may have its "bpm" too, or in the text file
    beside it (see data/captions.py), or the prompt in the JSON beside a generated wave; an edit or a
    continuation of a sound has none. Warns with a UserNotice of captions whose files are missing, and of JSON that is
    not of a generated wave.

    Raises UserError.
    """
    paths = find_sounds(folder)
    captions: dict[str, CaptionLine] = {}
    for file in find_named(folder, CAPTIONS_NAME):
        beside = _described(file)
        captions |= {os.path.normpath(file.relative_to(folder).parent / name): line for name, line in beside.items()}
        missing = [name for name in beside if not os.path.isfile(file.parent / name)]
        if missing:
            text = f"{file}: {len(missing)} of {len(beside)} captions name files that are not there"
            warnings.warn(UserNotice(f"{text}, such as {missing[0]}; these captions are left out"), stacklevel=2)
    if most is not None and len(paths) > most:
        drawn = np.random.default_rng(seed).choice(len(paths), most, replace=False)
        paths = [paths[place] for place in sorted(drawn)]
    return [_clip(path, folder, captions) for path in paths]


def _described(path: Path) -> dict[str, CaptionLine]:
    """The first line of each file (without ./ and ..) of a captions.jsonl. Raises UserError."""
    lines: dict[str, CaptionLine] = {}
    for line in read_caption_lines(path):
        lines.setdefault(os.path.normpath(line.file), line)
    return lines


def read_prompts(path: Path, most: int | None = None) -> list[str]:
    """The first prompts of a text file with one a line, or of a captions file (.jsonl). Raises UserError."""
    if path.suffix == ".jsonl":
        prompts = [line.captions[0] for line in _described(path).values()]
    else:
        prompts = [text for _, text in read_lines(path)]
    if not prompts:
        raise UserError(f"{path}: holds no prompt; write one a line")
    return list(dict.fromkeys(prompts))[:most]


def _clip(path: Path, folder: Path, captions: Mapping[str, CaptionLine]) -> EvaluationClip:
    line = captions.get(str(path.relative_to(folder)))
    if line is not None:
        return EvaluationClip(path, line.captions[0], _bpm(line))
    if path.with_suffix(".txt").is_file():
        return EvaluationClip(path, sidecar_captions(path)[0])
    description = path.with_suffix(".json")
    if not description.is_file():
        return EvaluationClip(path, None)
    try:
        content = read_json(description, _LARGEST_DESCRIPTION)
        described = described_prompt(content, str(description)) if isinstance(content, dict) else None
    except UserError as error:  # music may come with JSON of its own
        warnings.warn(UserNotice(f"{error}; the clip counts as one without a prompt"), stacklevel=2)
        return EvaluationClip(path, None)
    if described is None or isinstance(described, str):
        return EvaluationClip(path, described)
    return EvaluationClip(path, content["prompt"], None, described)


def _bpm(line: CaptionLine) -> float | None:
    bpm = line.keys.get("bpm")
    if bpm is not None and (isinstance(bpm, bool) or not isinstance(bpm, int | float) or bpm <= 0):
        raise UserError(f"{line.place}: bpm: expected a number above 0, found {shown(bpm)}")
    return None if bpm is None else float(bpm)
