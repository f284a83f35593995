"""Linear probes (Alain and Bengio 2017): how well a linear model predicts a tag from embeddings."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold, GroupShuffleSplit, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from open_musiclm.analysis.options import SEED

FOLDS = 5
MOST_SOUNDS = 10_000
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # inverse penalties of the classifier
_PENALTIES = np.logspace(-1, 5, 13)
_MOST_STEPS = 300
_MOST_SPLITS = 20


Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ProbeResult:
    """Per sound whether its class is right (1 or 0), or for numbers how much smaller than the variance the squared
    error is; the mean is the accuracy, or R squared. `chance` is the score of the most frequent class, or of the mean.
    """

    scores: Float[np.ndarray, "sounds"]
    chance: float
    groups: Int[np.ndarray, "sounds"]


def probe(
    vectors: Float[np.ndarray, "sounds dim"],
    values: Shaped[np.ndarray, "sounds"],
    groups: Int[np.ndarray, "sounds"] | None = None,
) -> ProbeResult:
    """Logistic regression of texts, ridge regression of floats, in five-fold cross-validation.

    Every sound is predicted by a model that saw neither it nor any other of its group. Features are standardized; the
    penalty is chosen inside the training folds. At most 10,000 sounds, taken at random, are used.
    """
    members = np.sort(np.random.default_rng(SEED).permutation(len(values))[:MOST_SOUNDS])
    vectors, values = vectors[members], values[members]
    own_groups = members if groups is None else groups[members]
    is_number = bool(np.issubdtype(values.dtype, np.floating))
    if is_number:
        values = values / (np.abs(values).max() or 1.0)  # whose squares are numbers too
    scores = np.empty(len(values))
    for fitted, held_out in _folds(values, own_groups, is_number):
        predict = _fit_numbers if is_number else _fit_classes
        predicted = predict(vectors[fitted], values[fitted], own_groups[fitted])(vectors[held_out])
        if is_number:
            scores[held_out] = 1 - np.square(predicted - values[held_out]) / values.var()
        else:
            scores[held_out] = predicted == values[held_out]
    chance = 0.0 if is_number else float(np.unique(values, return_counts=True)[1].max() / len(values))
    return ProbeResult(scores, chance, own_groups)


def _fit_numbers(vectors: np.ndarray, values: np.ndarray, groups: np.ndarray) -> Predict:
    return make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(vectors, values).predict


def _fit_classes(vectors: np.ndarray, values: np.ndarray, groups: np.ndarray) -> Predict:
    """Regression on class indicators would miss a class between others, such as a medium tempo."""
    if len(np.unique(values)) < 2 or len(np.unique(groups)) < 2:
        most = np.unique(values, return_counts=True)
        return lambda others: np.repeat(most[0][most[1].argmax()], len(others))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MOST_STEPS))
    inside = _inner_split(values, groups)
    search = model if inside is None else GridSearchCV(model, {"logisticregression__C": _STRENGTHS}, cv=[inside])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that are too few, of classes that a split lacks
        return search.fit(vectors, values).predict


def _inner_split(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The first of some random splits by groups that leaves two classes to fit to; None if all leave one."""
    splits = GroupShuffleSplit(_MOST_SPLITS, test_size=1 / FOLDS, random_state=SEED).split(values, groups=groups)
    return next((split for split in splits if len(np.unique(values[split[0]])) > 1), None)


def _folds(values: np.ndarray, groups: np.ndarray, is_number: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """The indices of the sounds to fit to and to predict, for each fold."""
    if len(np.unique(groups)) < len(groups):
        count = min(FOLDS, len(np.unique(groups)))
        return list(GroupKFold(count, shuffle=True, random_state=SEED).split(values, groups=groups))
    if is_number:
        return list(KFold(FOLDS, shuffle=True, random_state=SEED).split(values))
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(values, values))
