"""CLAP's contrastive loss and retrieval recall (Wu et al. 2023, 3.1 and 4.1)."""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RECALL_AT = (1, 5, 10)


class Pairs(NamedTuple):
    """Sounds and their captions: embeddings of length 1, and a number for each caption, equal for equal ones."""

    audio: Float[Tensor, "pairs dim"]
    text: Float[Tensor, "pairs dim"]
    captions: Int[Tensor, "pairs"]


def contrastive_loss(some: Pairs, everyone: Pairs, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Symmetric cross-entropy of `some` pairs, each sound and each caption among those of `everyone`.

    A caption that is the same sentence as a sound's own fits it as well: such pairs share the target. Needs memory
    for a number for each of the some * everyone pairs.
    """
    fits = some.captions[:, None] == everyone.captions
    by_audio = _cross_entropy(scale * some.audio @ everyone.text.T, fits)
    by_text = _cross_entropy(scale * some.text @ everyone.audio.T, fits)
    return (by_audio + by_text) / 2


def retrieval_recall(
    queries: Float[Tensor, "queries dim"],
    candidates: Float[Tensor, "candidates dim"],
    fits: Bool[Tensor, "queries candidates"],
) -> dict[int, Float[Tensor, ""]]:
    """For 1, 5, 10: the share of queries with a fitting candidate among that many most similar ones.

    Of equally similar candidates those that do not fit come first, so that equal embeddings find nothing.
    """
    similarity = queries @ candidates.T
    best = similarity.masked_fill(~fits, -torch.inf).amax(dim=1, keepdim=True)
    before = ((similarity >= best) & ~fits).sum(dim=1)
    return {most: (before < most).float().mean() for most in RECALL_AT}


def caption_numbers(captions: list[str]) -> Int[Tensor, "captions"]:
    """A number of 64 bits for each sentence, the same wherever it is computed."""
    digests = [hashlib.blake2b(caption.encode(), digest_size=8).digest() for caption in captions]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def _cross_entropy(logits: Float[Tensor, "some all"], fits: Bool[Tensor, "some all"]) -> Float[Tensor, ""]:
    """Mean cross-entropy where all that fits is equally right."""
    target = torch.where(fits, logits, 0).sum(dim=1) / fits.sum(dim=1)
    return (logits.logsumexp(dim=1) - target).mean()
