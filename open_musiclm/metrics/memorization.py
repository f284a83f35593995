"""Whether clips repeat training music: shared runs of semantic tokens."""

from collections.abc import Iterable, Sequence

Tokens = Sequence[int]
Gram = tuple[int, ...]


def changes(tokens: Tokens) -> list[int]:
    """The tokens without immediate repetitions: a held sound is one token however long it is held."""
    return [token for place, token in enumerate(tokens) if place == 0 or token != tokens[place - 1]]


def grams(tokens: Tokens, length: int) -> set[Gram]:
    """All runs of `length` changes."""
    reduced = changes(tokens)
    return {tuple(reduced[start : start + length]) for start in range(len(reduced) - length + 1)}


def share_repeated(clips: Sequence[Tokens], training: Iterable[Tokens], length: int) -> float:
    """The share of clips with at least one run of `length` changes that some training clip has too.

    Compare it with that of unseen real clips: common sounds are shared by chance.
    """
    known: set[Gram] = set()
    for tokens in training:
        known |= grams(tokens, length)
    return sum(not known.isdisjoint(grams(tokens, length)) for tokens in clips) / max(len(clips), 1)
