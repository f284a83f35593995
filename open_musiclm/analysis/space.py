"""The shared space of one set of sounds: embeddings and tokens of the sounds and of their captions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from open_musiclm.analysis.labels import LabelledSound
from open_musiclm.analysis.token_statistics import decode_tokens
from open_musiclm.tokenizers.rvq import ClapQuantizer

_BLOCK = 1024


@dataclass(frozen=True)
class Space:
    """Embeddings of length 1; `pairs` numbers a sound and one of its captions in each line.

    Texts are distinct: several sounds may have the same caption. Without an RVQ `codebooks` and all tokens have no
    levels.
    """

    sounds: Sequence[LabelledSound]
    texts: Sequence[str]
    sound_vectors: Float[np.ndarray, "sounds dim"]
    text_vectors: Float[np.ndarray, "texts dim"]
    pairs: Int[np.ndarray, "pairs 2"]
    codebooks: Float[np.ndarray, "levels codes dim"]
    sound_tokens: Int[np.ndarray, "sounds levels"]
    text_tokens: Int[np.ndarray, "texts levels"]

    @property
    def levels(self) -> int:
        """The number of the RVQ's levels, 0 without one."""
        return len(self.codebooks)

    @cached_property
    def sounds_of_text(self) -> list[Int[np.ndarray, "_"]]:
        """The sounds that each text describes."""
        return _grouped(self.pairs[:, 1], self.pairs[:, 0], len(self.texts))

    @cached_property
    def texts_of_sound(self) -> list[Int[np.ndarray, "_"]]:
        """The texts that describe each sound."""
        return _grouped(self.pairs[:, 0], self.pairs[:, 1], len(self.sounds))

    def quantized(self, levels: int) -> "Space":
        """A copy with embeddings quantized by the first levels of the RVQ, of length 1; 0: unchanged."""
        if levels == 0:
            return self
        sounds, texts = (
            decode_tokens(tokens[:, :levels], self.codebooks) for tokens in (self.sound_tokens, self.text_tokens)
        )
        return replace(self, sound_vectors=normalized(sounds), text_vectors=normalized(texts))

    def cosines(self) -> Float[np.ndarray, "pairs"]:
        """The cosine of every pair, in blocks."""
        blocks = (self.pairs[first : first + _BLOCK].T for first in range(0, len(self.pairs), _BLOCK))
        found = [
            np.einsum("nd,nd->n", self.sound_vectors[sounds], self.text_vectors[texts]) for sounds, texts in blocks
        ]
        return np.concatenate(found).astype(np.float64)


def caption_pairs(sounds: Sequence[LabelledSound], most: int) -> tuple[list[str], Int[np.ndarray, "pairs 2"]]:
    """All distinct captions, of each sound the first `most`, and the pairs of a sound and a caption."""
    numbers: dict[str, int] = {}
    pairs = [
        (sound, numbers.setdefault(text, len(numbers)))
        for sound, labelled in enumerate(sounds)
        for text in labelled.captions[:most]
    ]
    return list(numbers), np.array(pairs, dtype=np.int64).reshape(-1, 2)


def tokens_of(vectors: Float[np.ndarray, "vectors dim"], quantizer: ClapQuantizer) -> Int[np.ndarray, "vectors levels"]:
    """CLAP tokens, in blocks."""
    device = quantizer.residual_vq.codebooks.device
    blocks = torch.from_numpy(vectors).split(_BLOCK)
    return np.concatenate([quantizer.encode(block.to(device)).cpu().numpy() for block in blocks])


def normalized(vectors: Float[np.ndarray, "vectors dim"]) -> Float[np.ndarray, "vectors dim"]:
    """The vectors at length 1; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _grouped(keys: np.ndarray, values: np.ndarray, count: int) -> list[Int[np.ndarray, "_"]]:
    order = np.argsort(keys, kind="stable")
    return np.split(values[order], np.searchsorted(keys[order], np.arange(1, count)))
