"""CLAP's text side for own training: a byte-level BPE vocabulary, and captions in JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizer

from open_musiclm.errors import UserError

# RoBERTa's order: CLAP's padding id is 1.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LONGEST_PROMPT_TOKENS = 77


@dataclass(frozen=True)
class CaptionedSound:
    """A sound file and the sentences that describe it; training takes any of them."""

    path: Path
    captions: tuple[str, ...]


def read_captions(path: Path) -> list[CaptionedSound]:
    """Reads lines of {"file": ..., "caption": ...} (further keys are ignored, "captions" may list several).

    Files are relative to the folder of the JSON lines. Raises UserError that names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read captions: {error}") from error
    sounds = [_captioned(line, f"{path}:{number}", path.parent) for number, line in enumerate(lines, 1) if line.strip()]
    if not sounds:
        raise UserError(f'{path}: holds no captions; expected lines of {{"file": "...", "caption": "..."}}')
    return sounds


def train_text_tokenizer(texts: Iterable[str], vocabulary_size: int) -> RobertaTokenizer:
    """A byte-level BPE (any prompt in any script has tokens) fitted on `texts`, as RoBERTa's tokenizer."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        texts, vocab_size=vocabulary_size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    description = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in description["merges"]]
    return RobertaTokenizer(vocab=description["vocab"], merges=merges, model_max_length=LONGEST_PROMPT_TOKENS)


def _captioned(line: str, place: str, folder: Path) -> CaptionedSound:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON: {error}") from error
    captions = entry.get("captions", [entry.get("caption")]) if isinstance(entry, dict) else [None]
    if not isinstance(entry.get("file") if isinstance(entry, dict) else None, str):
        raise UserError(f'{place}: lacks "file", the path of a sound beside this file')
    sentences = [caption for caption in captions if isinstance(caption, str) and caption.strip()]
    if not sentences:
        raise UserError(f'{place}: lacks "caption", a sentence that describes {entry["file"]}')
    return CaptionedSound(folder / entry["file"], tuple(sentences))
