"""Statistics of CLAP tokens: agreement of sound and text, energy left per level, usage of the codebooks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_BLOCK = 8192
_NO_ENERGY = 1e-10  # of a vector of length 1: rounding errors


@dataclass(frozen=True)
class Agreement:
    """For each pair of a sound and a text and each level: whether the tokens are equal, and all up to there.

    `chance` is the share of equal tokens, per level, of random pairs.
    """

    equal: Float[np.ndarray, "pairs levels"]
    equal_so_far: Float[np.ndarray, "pairs levels"]
    chance: Float[np.ndarray, "levels"]


def agreement(sounds: Int[np.ndarray, "pairs levels"], texts: Int[np.ndarray, "pairs levels"]) -> Agreement:
    """Agreement of the tokens of a sound and of its text, pair by pair."""
    equal = sounds == texts
    codes = int(max(sounds.max(), texts.max())) + 1
    chance = [
        float(frequencies(of_sounds, codes) @ frequencies(of_texts, codes))
        for of_sounds, of_texts in zip(sounds.T, texts.T, strict=True)
    ]
    return Agreement(equal * 1.0, np.logical_and.accumulate(equal, axis=1) * 1.0, np.array(chance))


def reconstructions(
    tokens: Int[np.ndarray, "vectors levels"], codebooks: Float[np.ndarray, "levels codes dim"]
) -> Iterator[Float[np.ndarray, "vectors dim"]]:
    """The quantized vectors after the first 1, 2, ... levels of the RVQ."""
    so_far = np.zeros((len(tokens), codebooks.shape[2]), dtype=codebooks.dtype)
    for own, codebook in zip(tokens.T, codebooks, strict=True):
        so_far = so_far + codebook[own]
        yield so_far


def decode_tokens(
    tokens: Int[np.ndarray, "vectors levels"], codebooks: Float[np.ndarray, "all_levels codes dim"]
) -> Float[np.ndarray, "vectors dim"]:
    """The quantized vectors: the sum of the codes of all tokens."""
    return sum(
        (codebook[own] for own, codebook in zip(tokens.T, codebooks, strict=False)),
        np.zeros((len(tokens), codebooks.shape[2]), codebooks.dtype),
    )


def residual_energy(
    vectors: Float[np.ndarray, "vectors dim"],
    tokens: Int[np.ndarray, "vectors levels"],
    codebooks: Float[np.ndarray, "levels codes dim"],
) -> Float[np.ndarray, "levels"]:
    """The share of the vectors' energy about their mean that is left after each level: 1 - R squared; summed in
    blocks. NaN if all vectors are the same."""
    left, total = np.zeros(len(codebooks)), 0.0
    mean = vectors.mean(axis=0, dtype=np.float64)
    for first in range(0, len(vectors), _BLOCK):
        block = vectors[first : first + _BLOCK].astype(np.float64)
        total += float(np.square(block - mean).sum())
        for level, quantized in enumerate(reconstructions(tokens[first : first + _BLOCK], codebooks)):
            left[level] += np.square(block - quantized).sum()
    return left / total if total > _NO_ENERGY * len(vectors) else np.full(len(codebooks), np.nan)


def frequencies(tokens: Int[np.ndarray, "vectors"], codes: int) -> Float[np.ndarray, "codes"]:
    """The share of every code."""
    return np.bincount(tokens, minlength=codes) / len(tokens)


def usage(tokens: Int[np.ndarray, "vectors"], codes: int) -> float:
    """The share of the codes that occur."""
    return float((frequencies(tokens, codes) > 0).mean())


def perplexity(tokens: Int[np.ndarray, "vectors"], codes: int) -> float:
    """The exponential of the entropy: the number of equally frequent codes with the same entropy."""
    shares = frequencies(tokens, codes)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def most_used(tokens: Int[np.ndarray, "vectors"], count: int) -> list[tuple[int, int]]:
    """The most frequent codes and how often each occurs, the most frequent first; of equals the lower code."""
    codes, counts = np.unique(tokens, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]
    return [(int(codes[place]), int(counts[place])) for place in order]


def nearest(
    point: Float[np.ndarray, "dim"], vectors: Float[np.ndarray, "vectors dim"], count: int
) -> Int[np.ndarray, "_"]:
    """The vectors nearest to a point by Euclidean distance, the nearest first; summed in blocks."""
    distances = np.concatenate(
        [
            np.square(vectors[first : first + _BLOCK] - point).sum(axis=1)
            for first in range(0, len(vectors), _BLOCK)
        ]
    )  # fmt: skip
    return np.argsort(distances, kind="stable")[:count]
