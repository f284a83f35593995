"""CLAP's text side for own training: a byte-level BPE vocabulary, and captions in JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizer

from open_musiclm.config.json_files import read_json_lines, shown
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
    """Reads lines of {"file": ..., "caption": ...}; "captions" may list several, or be one. Further keys are ignored.

    Files are relative to the folder of the JSON lines; lines of the same file add to each other. Raises UserError that
    names the line.
    """
    captions: dict[Path, list[str]] = {}
    for place, entry in read_json_lines(path):
        file, sentences = _captions_of(entry, place)
        captions.setdefault(path.parent / file, []).extend(sentences)
    if not captions:
        raise UserError(f'{path}: holds no captions; expected lines of {{"file": "...", "caption": "..."}}')
    return [CaptionedSound(sound, tuple(dict.fromkeys(sentences))) for sound, sentences in captions.items()]


def train_text_tokenizer(texts: Iterable[str], vocabulary_size: int) -> RobertaTokenizer:
    """A byte-level BPE (any prompt in any script has tokens) fitted on `texts`, as RoBERTa's tokenizer."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        texts, vocab_size=vocabulary_size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    description = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in description["merges"]]
    return RobertaTokenizer(vocab=description["vocab"], merges=merges, model_max_length=LONGEST_PROMPT_TOKENS)


def _captions_of(entry: object, place: str) -> tuple[str, list[str]]:
    """The file of a line and its captions, at least one. Raises UserError."""
    if not isinstance(entry, dict):
        raise UserError(f'{place}: expected {{"file": "...", "caption": "..."}}, found {shown(entry)}')
    file = entry.get("file")
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        raise UserError(f'{place}: "file": expected the path of a sound beside this file, found {shown(file)}')
    found = entry.get("captions")
    if found is None or found == []:
        found = entry.get("caption")
    captions = found if isinstance(found, list) else [] if found is None else [found]
    for caption in captions:
        if not isinstance(caption, str):
            raise UserError(f"{place}: expected captions that are texts, found {shown(caption)}")
    sentences = [caption for caption in captions if caption.strip()]
    if not sentences:
        raise UserError(f'{place}: lacks "caption", a sentence that describes {shown(file)}')
    return file, sentences
