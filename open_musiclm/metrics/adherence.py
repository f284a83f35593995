"""How well sounds fit their prompts: cosines of CLAP embeddings, and the ranks of prompts and sounds among others.

With CLAP the mean cosine is the CLAP score, with the model's own text and sound towers MusicLM's cycle consistency
(Agostinelli et al. 2023, section 5.2). Ranks are counted in blocks: memory does not grow with sounds times prompts.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS_AT_ONCE = 4096
# Similarities closer than this are ties: float32 does not tell them apart.
_RESOLUTION = 1e-6


def cosines(sounds: Float[Tensor, "clips dim"], prompts: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips"]:
    """The cosine of each sound and its prompt."""
    return torch.cat([(left * right).sum(1) for left, right in zip(_unit(sounds), _unit(prompts), strict=True)])


def prompt_ranks(
    sounds: Float[Tensor, "clips dim"], prompts: Float[Tensor, "prompts dim"], own: Sequence[int]
) -> Int[Tensor, "clips"]:
    """The rank of each sound's own prompt, `own[clip]`, among all prompts by cosine; 1 is the best.

    Prompts that are as close count as closer.
    """
    scores = cosines(sounds, prompts[torch.tensor(own).long()])
    return _count_as_close(sounds, prompts, scores)


def sound_ranks(
    sounds: Float[Tensor, "clips dim"],
    prompts: Float[Tensor, "prompts dim"],
    own: Sequence[int],
    chosen: Int[Tensor, "chosen"] | None = None,
) -> Int[Tensor, "chosen"]:
    """The rank of the best of a prompt's own sounds among all sounds by cosine, of all prompts or of those `chosen`
    for; 1 is the best.

    Foreign sounds that are as close count as closer. Every prompt has a sound.
    """
    owners = torch.tensor(own).long()
    chosen = torch.arange(len(prompts)) if chosen is None else chosen
    scores = cosines(sounds, prompts[owners])
    best = torch.full((len(prompts),), -torch.inf).double()
    np.maximum.at(best.numpy(), owners.numpy(), scores.numpy())
    as_good = torch.bincount(owners[scores >= best[owners] - _RESOLUTION], minlength=len(prompts))
    return 1 + _count_as_close(prompts[chosen], sounds, best[chosen]) - as_good[chosen]


def chance_recall(items: int, relevant: Int[np.ndarray, "queries"], depth: int) -> Float[np.ndarray, "queries"]:
    """The probability that at least one of `relevant` items is among `depth` random ones of all items."""
    *_, missed = islice(_all_missed(items, relevant), depth)
    return 1 - missed


def chance_rank(items: int, relevant: Int[np.ndarray, "queries"]) -> int:
    """The median rank of the best of each query's `relevant` items, one or more, where the order is random."""
    counts, times = np.unique(relevant, return_counts=True)
    ranks = enumerate(_all_missed(items, counts), start=1)
    return next(rank for rank, missed in ranks if 2 * times @ missed <= times.sum())


def _all_missed(items: int, relevant: Int[np.ndarray, "queries"]) -> Iterator[Float[np.ndarray, "queries"]]:
    """The probability that none of `relevant` items is among the first one, two, ... of all items in random order."""
    missed = np.ones(len(relevant))
    for taken in range(items):
        missed = missed * np.clip((items - relevant - taken) / (items - taken), 0, 1)
        yield missed


def _count_as_close(
    queries: Float[Tensor, "queries dim"], items: Float[Tensor, "items dim"], similarities: Float[Tensor, "queries"]
) -> Int[Tensor, "queries"]:
    """How many items are as similar to a query as its number says, or more."""
    counts = np.zeros(len(queries), dtype=np.int64)
    least = (similarities - _RESOLUTION).float().unsqueeze(1)
    blocks = [block.float() for block in _unit(items)]
    for first, rows in zip(range(0, len(queries), ROWS_AT_ONCE), _unit(queries), strict=True):
        some = slice(first, first + ROWS_AT_ONCE)
        for columns in blocks:
            close = rows.float() @ columns.T >= least[some]
            counts[some] += np.count_nonzero(close.numpy(), axis=1)  # several times as fast as torch's sum
    return torch.from_numpy(counts)


def _unit(vectors: Float[Tensor, "vectors dim"]) -> Iterator[Float[Tensor, "_ dim"]]:
    return (torch.nn.functional.normalize(block.double(), dim=1) for block in vectors.split(ROWS_AT_ONCE))
