"""Arithmetic with embeddings (Mikolov et al. 2013): does 'slow piano' plus 'fast' minus 'slow' lead to 'fast piano'?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Steps:
    """For every step from one value to another in a context: whether the target is the nearest candidate (1 or 0),
    whether it is the nearest without the start, and whether the start is the nearest."""

    nearest: Float[np.ndarray, "steps"]
    nearest_but_start: Float[np.ndarray, "steps"]
    stays: Float[np.ndarray, "steps"]
    contexts: Int[np.ndarray, "steps"]
    chance_without_start: float


def take_steps(
    starts: Float[np.ndarray, "values contexts dim"],
    directions: Float[np.ndarray, "values contexts dim"],
    candidates: Float[np.ndarray, "values contexts dim"],
) -> Steps:
    """From `starts[a, c]` along `directions[b, c] - directions[a, c]`: is `candidates[b, c]` the nearest by cosine?

    All steps between different values in every context; candidates are those of all values and contexts. Missing
    combinations are NaN, and are neither a start nor a candidate.
    """
    values, contexts, dim = starts.shape
    flat = candidates.reshape(values * contexts, dim)
    there = np.isfinite(flat).all(axis=1)
    unit = np.where(there[:, None], flat / np.linalg.norm(flat, axis=1, keepdims=True), 0.0)
    outcomes = []
    for context in range(contexts):
        for start in range(values):
            for target in range(values):
                result = starts[start, context] + directions[target, context] - directions[start, context]
                origin, goal = start * contexts + context, target * contexts + context
                if start == target or not np.isfinite(result).all() or not (there[origin] and there[goal]):
                    continue
                similarities = np.where(there, unit @ result, -np.inf)
                first = int(similarities.argmax())
                similarities[origin] = -np.inf
                outcomes.append((first == goal, int(similarities.argmax()) == goal, first == origin, context))
    found = np.array(outcomes, dtype=np.int64).reshape(-1, 4)
    nearest, nearest_but_start, stays = (found[:, column].astype(np.float64) for column in range(3))
    return Steps(nearest, nearest_but_start, stays, found[:, 3], 1 / max(int(there.sum()) - 1, 1))


def cell_means(
    vectors: Float[np.ndarray, "sounds dim"],
    values: Int[np.ndarray, "sounds"],
    contexts: Int[np.ndarray, "sounds"],
    shape: tuple[int, int],
) -> Float[np.ndarray, "values contexts dim"]:
    """The mean vector of every combination; NaN if there is no sound."""
    sums = np.zeros((*shape, vectors.shape[1]))
    counts = np.zeros(shape)
    np.add.at(sums, (values, contexts), vectors)
    np.add.at(counts, (values, contexts), 1)
    return np.where(counts[..., None] > 0, sums / np.maximum(counts, 1)[..., None], np.nan)


def means_of_other_contexts(
    cells: Float[np.ndarray, "values contexts dim"],
) -> Float[np.ndarray, "values contexts dim"]:
    """For every value and context the mean over all other contexts; NaN if no other has that value."""
    there = np.isfinite(cells).all(axis=-1, keepdims=True)
    sums = np.where(there, cells, 0.0)
    others = there.sum(axis=1, keepdims=True) - there
    return np.where(others > 0, (sums.sum(axis=1, keepdims=True) - sums) / np.maximum(others, 1), np.nan)
