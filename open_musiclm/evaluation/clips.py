"""Finding the clips of a set, with the prompts or captions that are known of them."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from open_musiclm.audio import find_sounds
from open_musiclm.config.json_files import read_json, read_json_lines, shown
from open_musiclm.errors import Remark, UserError
from open_musiclm.generation.prompt_description import described_prompt
from open_musiclm.generation.story import AnyPrompt
from open_musiclm.text_files import read_lines

CAPTIONS_NAME = "captions.jsonl"
_LARGEST_STORY = 1 << 20


@dataclass(frozen=True)
class EvaluationClip:
    """A sound file; the name of its prompt, and its beats per minute, where these are known.

    `asked` is what a prompt that is no plain text stands for: a mixture, a style sound or a story, sounds as paths.
    """

    path: Path
    prompt: str | None
    bpm: float | None = None
    asked: AnyPrompt | None = None

    @property
    def text(self) -> str | None:
        """The prompt, where it is a plain text."""
        return self.prompt if self.asked is None else None


def find_clips(folder: Path, most: int | None = None, seed: int = 0) -> list[EvaluationClip]:
    """The sounds below a folder, sorted; of more than `most` so many drawn at random.

    Prompts are those of the JSON beside a wave, or of captions.jsonl in the folder: lines of {"file", "caption"} and,
    if known, "bpm". An edit of a sound has none. Warns with a Remark of captions whose files are missing.

    Raises UserError.
    """
    paths = find_sounds(folder)
    captions = read_captions(folder / CAPTIONS_NAME) if (folder / CAPTIONS_NAME).exists() else {}
    missing = [name for name in captions if not os.path.isfile(folder / name)]  # False of any name that cannot be
    if missing:
        text = f"{folder / CAPTIONS_NAME}: {len(missing)} of {len(captions)} captions name files that are not there"
        warnings.warn(Remark(f"{text}, such as {missing[0]}; these captions are left out"), stacklevel=2)
    if most is not None and len(paths) > most:
        drawn = np.random.default_rng(seed).choice(len(paths), most, replace=False)
        paths = [paths[place] for place in sorted(drawn)]
    return [_clip(path, folder, captions) for path in paths]


def read_captions(path: Path) -> dict[str, Mapping[str, Any]]:
    """The lines of a captions file by "file" (without ./ and ..); each has a text as "caption". Raises UserError."""
    captions: dict[str, Mapping[str, Any]] = {}
    for place, line in read_json_lines(path):
        if not isinstance(line, dict) or not isinstance(line.get("file"), str):
            raise UserError(f'{place}: expected {{"file": ..., "caption": ...}}, found {shown(line)}')
        caption, bpm = line.get("caption"), line.get("bpm")
        if not isinstance(caption, str) or not caption.strip():
            raise UserError(f"{place}: caption: expected a text, found {shown(caption)}")
        if bpm is not None and (isinstance(bpm, bool) or not isinstance(bpm, int | float) or bpm <= 0):
            raise UserError(f"{place}: bpm: expected a number above 0, found {shown(bpm)}")
        captions.setdefault(os.path.normpath(line["file"]), line)
    return captions


def read_prompts(path: Path, most: int | None = None) -> list[str]:
    """The first prompts of a text file with one a line, or of a captions file (.jsonl). Raises UserError."""
    if path.suffix == ".jsonl":
        prompts = [str(line["caption"]) for line in read_captions(path).values()]
    else:
        prompts = [text for _, text in read_lines(path)]
    if not prompts:
        raise UserError(f"{path}: holds no prompt; write one a line")
    return list(dict.fromkeys(prompts))[:most]


def _clip(path: Path, folder: Path, captions: Mapping[str, Mapping[str, Any]]) -> EvaluationClip:
    caption = captions.get(str(path.relative_to(folder)))
    if caption is not None:
        bpm = caption.get("bpm")
        return EvaluationClip(path, caption["caption"], None if bpm is None else float(bpm))
    story = path.with_suffix(".json")
    if not story.is_file():
        return EvaluationClip(path, None)
    content = read_json(story, _LARGEST_STORY)
    asked = described_prompt(content, str(story)) if isinstance(content, dict) else None
    if asked is None or isinstance(asked, str):
        return EvaluationClip(path, asked)
    return EvaluationClip(path, content["prompt"], None, asked)
