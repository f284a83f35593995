"""Linear probes (Alain and Bengio 2017): how well a linear model reads a tag off embeddings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
MOST_SOUNDS = 20_000
_PENALTIES = np.logspace(-1, 5, 13)


@dataclass(frozen=True)
class ProbeResult:
    """Per sound whether its class is right (1 or 0), or for numbers how much smaller than the variance the squared
    error is; the mean is the accuracy, or R squared. `guess` is what the most frequent class, or the mean, gets.
    """

    scores: Float[np.ndarray, "sounds"]
    guess: float
    groups: Int[np.ndarray, "sounds"]


def probe(
    vectors: Float[np.ndarray, "sounds dim"],
    values: Shaped[np.ndarray, "sounds"],
    groups: Int[np.ndarray, "sounds"] | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Ridge classification of texts, ridge regression of floats, in five-fold cross-validation.

    Every sound is predicted by a model that saw neither it nor any other of its group. Features are standardized; the
    penalty is chosen inside the training folds by leave-one-out. At most 20,000 sounds, taken at random, are used.
    """
    rng = np.random.default_rng(seed)
    members = np.sort(rng.permutation(len(values))[:MOST_SOUNDS])
    vectors, values = vectors[members], values[members]
    own_groups = members if groups is None else groups[members]
    is_number = np.issubdtype(values.dtype, np.floating)
    model = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES) if is_number else RidgeClassifierCV(_PENALTIES))
    scores = np.empty(len(values))
    for fitted, held_out in _folds(values, own_groups, is_number, seed):
        model.fit(vectors[fitted], values[fitted])
        predicted = model.predict(vectors[held_out])
        if is_number:
            scores[held_out] = 1 - np.square(predicted - values[held_out]) / values.var()
        else:
            scores[held_out] = predicted == values[held_out]
    guess = 0.0 if is_number else float(np.unique(values, return_counts=True)[1].max() / len(values))
    return ProbeResult(scores, guess, own_groups)


def _folds(values: np.ndarray, groups: np.ndarray, is_number: bool, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The numbers of the sounds to fit to and to predict, of each fold."""
    if len(np.unique(groups)) < len(groups):
        count = min(FOLDS, len(np.unique(groups)))
        return list(GroupKFold(count, shuffle=True, random_state=seed).split(values, groups=groups))
    if is_number:
        return list(KFold(FOLDS, shuffle=True, random_state=seed).split(values))
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(values, values))
