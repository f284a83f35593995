"""N-gram overlap: the share of clips that have a run of semantic tokens in common with training music.

MusicLM (Agostinelli et al. 2023, section 6) compares token sequences of the model with those of its training data;
here immediate repetitions do not count, and a run may lie anywhere in a clip.
"""

from collections.abc import Iterable, Sequence

Tokens = Sequence[int]
Gram = tuple[int, ...]


def deduplicated(tokens: Tokens) -> list[int]:
    """The tokens without immediate repetitions: a sound counts once however long it lasts."""
    return [token for place, token in enumerate(tokens) if place == 0 or token != tokens[place - 1]]


def ngrams(tokens: Tokens, length: int) -> set[Gram]:
    """All runs of `length` deduplicated tokens."""
    reduced = deduplicated(tokens)
    return {tuple(reduced[start : start + length]) for start in range(len(reduced) - length + 1)}


def ngram_overlap(clips: Sequence[Tokens], training: Iterable[Tokens], length: int) -> float:
    """The share (0 to 1) of clips with at least one run of `length` deduplicated tokens of some training clip.

    Compare it with the share among real clips that were not trained on: common sounds have runs in common anyway.
    """
    trained: set[Gram] = set()
    for tokens in training:
        trained |= ngrams(tokens, length)
    return sum(not trained.isdisjoint(ngrams(tokens, length)) for tokens in clips) / max(len(clips), 1)
