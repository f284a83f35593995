"""CLAP tokens of captions in a token store: caption_tokens.json, by the name of the sound file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.config.json_files import read_json_object
from open_musiclm.data.captions import captions_of
from open_musiclm.data.crop_preparation import stored_name
from open_musiclm.data.text_conditioning import CaptionChoice
from open_musiclm.data.token_dataset import TokenDataset
from open_musiclm.errors import UserError
from open_musiclm.files import write_json
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokens import TokenStream

CAPTION_TOKENS_NAME = "caption_tokens.json"
_AT_ONCE = 64
_LARGEST = 1 << 30

CaptionTokens = Mapping[str, Sequence[Sequence[int]]]


def write_caption_tokens(store: Path, folder: Path, paths: Sequence[Path], tokenizer: MusicTokenizer) -> int:
    """Writes the tokens of all captions of sound files into a store.

    Returns how many files have some. Raises UserError if captions are damaged.
    """
    captions = captions_of(paths, folder)
    if not captions:
        (store / CAPTION_TOKENS_NAME).unlink(missing_ok=True)  # there were some before
        return 0
    texts = sorted({text for several in captions.values() for text in several})
    tokens: dict[str, list[int]] = {}
    for first in range(0, len(texts), _AT_ONCE):
        some = texts[first : first + _AT_ONCE]
        tokens.update(zip(some, tokenizer.prompt_ids(some)[:, 0].tolist(), strict=True))
    content = {stored_name(path, folder): [tokens[text] for text in several] for path, several in captions.items()}
    write_json(store / CAPTION_TOKENS_NAME, content)
    return len(content)


def read_caption_tokens(store: Path, stream: TokenStream) -> CaptionTokens:
    """The tokens of captions in a store. Raises UserError if there are none, or damaged ones."""
    path = store / CAPTION_TOKENS_NAME
    if not path.exists():
        raise UserError(
            f"caption_share: {store} has no {CAPTION_TOKENS_NAME}: its sound had no captions when it was preprocessed; "
            "write captions and preprocess again, or set caption_share 0"
        )
    content = read_json_object(path, _LARGEST)
    for name, several in content.items():
        if not (isinstance(several, list) and several and all(_fits(tokens, stream) for tokens in several)):
            raise UserError(
                f"{path}: {name[:80]!r}: expected lists of {stream.quantizers} ids below {stream.codebook_size}; "
                "remove this file and preprocess again"
            )
    return content


class TextConditionedTokens(Dataset[list[Int[Tensor, "_ _"]]]):
    """The examples of a token dataset, a share of them with the CLAP tokens of a caption of their file."""

    def __init__(self, tokens: TokenDataset, captions: CaptionTokens, choice: CaptionChoice) -> None:
        self.tokens, self.captions, self.choice = tokens, captions, choice

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> list[Int[Tensor, "_ _"]]:
        """The tokens of example `index`, all but CLAP's as without captions. Raises UserError."""
        clap, *others = self.tokens[index]
        captions = self.captions.get(self.tokens.store.path(self.tokens.row(index)), ())
        place = self.choice.place(index, len(captions))
        return [clap if place is None else torch.tensor([captions[place]]), *others]


def _fits(tokens: object, stream: TokenStream) -> bool:
    if not isinstance(tokens, list) or len(tokens) != stream.quantizers:
        return False
    return all(type(token) is int and 0 <= token < stream.codebook_size for token in tokens)
