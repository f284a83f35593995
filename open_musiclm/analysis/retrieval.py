"""Retrieval in a shared space: the rank of the relevant items of a query by similarity.

Computed in blocks of queries, so that memory does not grow with queries times items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from open_musiclm.analysis.options import SEED
from open_musiclm.metrics.adherence import chance_recall

RECALL_AT = (1, 5, 10)
_DEPTH = 10
_BLOCK_NUMBERS = 1 << 23
# Similarities closer than this are ties, which are broken at random: quantized embeddings are often equal.
_RESOLUTION = 1e-5


@dataclass(frozen=True)
class Ranking:
    """For each query the rank of the first relevant item, from 1, and its average precision in the first ten.

    `chance` is the probability of recall at 1, 5 and 10 in random order.
    """

    places: Int[np.ndarray, "queries"]
    average_precision: Float[np.ndarray, "queries"]
    chance: Float[np.ndarray, "queries recalls"]

    def recall(self, depth: int) -> Float[np.ndarray, "queries"]:
        """1 where a relevant item is among the first `depth`, else 0."""
        return (self.places <= depth).astype(np.float64)


def rank(
    queries: Float[np.ndarray, "queries dim"],
    items: Float[np.ndarray, "items dim"],
    relevant: Sequence[Int[np.ndarray, "_"]],
) -> Ranking:
    """Ranks the items for each query by their scalar product; `relevant` are the items, one or more, of each query.

    Average precision at 10 is the sum of the precisions at the relevant items among the first ten, divided by the
    number of relevant items, at most 10 (Manning et al. 2008, 8.4, cut at 10).
    """
    tie_breakers = np.random.default_rng(SEED).random(len(items)) * (_RESOLUTION / 2)
    block = max(_BLOCK_NUMBERS // max(len(items), 1), 1)
    places = np.empty(len(queries), dtype=np.int64)
    precision = np.empty(len(queries))
    for first in range(0, len(queries), block):
        similarities = (queries[first : first + block] @ items.T).astype(np.float64)
        keys = np.round(similarities / _RESOLUTION) * _RESOLUTION + tie_breakers
        for offset, line in enumerate(keys):
            own = relevant[first + offset]
            found = np.sort(1 + len(line) - np.searchsorted(np.sort(line), line[own], side="right"))
            places[first + offset] = found[0]
            top = found[found <= _DEPTH]
            precision[first + offset] = (np.arange(1, len(top) + 1) / top).sum() / min(len(own), _DEPTH)
    counts = np.array([len(own) for own in relevant])
    chance = np.stack([chance_recall(len(items), counts, depth) for depth in RECALL_AT], axis=1)
    return Ranking(places, precision, chance)
