"""The gap between the embeddings of sounds and texts (Liang et al. 2022), and affine corrections of the texts."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.cross_decomposition import PLSRegression

from open_musiclm.analysis.options import SEED

_NEIGHBOURS = 10
_MOST_POINTS = 4000  # of each kind, for the overlap: its work grows with the square
_ROUNDING = 1e-6  # of float32 embeddings of length 1
_RIDGE = 1e-3  # of the mean variance


@dataclass(frozen=True)
class AffineMap:
    """An affine map of text embeddings towards sounds: matrix [dim, dim] and shift [dim]."""

    matrix: Float[np.ndarray, "dim dim"]
    shift: Float[np.ndarray, "dim"]

    def __call__(self, texts: Float[np.ndarray, "texts dim"]) -> Float[np.ndarray, "texts dim"]:
        """The corrected embeddings, of length 1; where nothing is left of one, zero."""
        moved = texts @ self.matrix.T + self.shift
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        return (moved / np.where(lengths > _ROUNDING, lengths, np.inf)).astype(np.float32)


def distance_of_means(sounds: Float[np.ndarray, "sounds dim"], texts: Float[np.ndarray, "texts dim"]) -> float:
    """The Euclidean distance between the mean embeddings."""
    return float(np.linalg.norm(sounds.mean(axis=0, dtype=np.float64) - texts.mean(axis=0, dtype=np.float64)))


def overlap(
    sounds: Float[np.ndarray, "sounds dim"], texts: Float[np.ndarray, "texts dim"]
) -> Float[np.ndarray, "points"]:
    """Of every point, the share of the other kind among its ten nearest neighbours, divided by that of a full mixture.

    The mean is 0 if sounds and texts are separated, 1 if they are mixed. Uses as many texts as sounds, at most 4,000 of
    each at random; sounds come first in the result.
    """
    rng = np.random.default_rng(SEED)
    count = min(len(sounds), len(texts), _MOST_POINTS)
    taken = [of_kind[rng.permutation(len(of_kind))[:count]] for of_kind in (sounds, texts)]
    points = np.concatenate(taken).astype(np.float64)
    is_text = np.arange(2 * count) >= count
    neighbours = min(_NEIGHBOURS, 2 * count - 1)
    mixed = count / (2 * count - 1)
    squares = np.square(points).sum(axis=1)
    shares = np.empty(2 * count)
    for number, point in enumerate(points):
        distances = squares - 2 * points @ point
        distances[number] = np.inf
        nearest = np.argpartition(distances, neighbours - 1)[:neighbours]
        shares[number] = (is_text[nearest] != is_text[number]).mean() / mixed
    return shares


def mean_shift(texts: Float[np.ndarray, "pairs dim"], sounds: Float[np.ndarray, "pairs dim"]) -> AffineMap:
    """Moves the mean of the texts to that of the sounds."""
    difference = sounds.mean(axis=0, dtype=np.float64) - texts.mean(axis=0, dtype=np.float64)
    return AffineMap(np.eye(texts.shape[1]), difference)


def pls(texts: Float[np.ndarray, "pairs dim"], sounds: Float[np.ndarray, "pairs dim"], components: int) -> AffineMap:
    """Partial least squares regression of the sound's embedding on the text's (scikit-learn's PLSRegression).

    Of few different texts no more components are taken than they have directions: the next would be rounding errors.
    Texts that are all the same are moved to the mean of the sounds.
    """
    mean = texts.mean(axis=0, dtype=np.float64)
    spread = np.linalg.svd(texts - mean, compute_uv=False)
    components = min(components, int((spread > _ROUNDING * np.sqrt(len(texts))).sum()))
    if components == 0:
        return AffineMap(np.zeros((texts.shape[1],) * 2), sounds.mean(axis=0, dtype=np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sounds whose remainder does not vary: fewer components are enough
        fitted = PLSRegression(components, scale=False).fit(texts.astype(np.float64), sounds.astype(np.float64))
    return AffineMap(fitted.coef_, fitted.intercept_ - fitted.coef_ @ mean)


def cca(texts: Float[np.ndarray, "pairs dim"], sounds: Float[np.ndarray, "pairs dim"], components: int) -> AffineMap:
    """Canonical correlation analysis (Hotelling 1936): the text's canonical variates, each times its correlation, in
    the sound's space; that is regression of reduced rank on whitened sounds. Covariances get a small ridge."""
    left, right = texts.astype(np.float64), sounds.astype(np.float64)
    text_mean, sound_mean = left.mean(axis=0), right.mean(axis=0)
    left, right = left - text_mean, right - sound_mean
    text_whitening, _ = _roots(left.T @ left / len(left))
    sound_whitening, sound_root = _roots(right.T @ right / len(right))
    u, correlations, v = np.linalg.svd(text_whitening @ (left.T @ right / len(left)) @ sound_whitening)
    u, correlations, v = u[:, :components], correlations[:components], v[:components]
    matrix = sound_root @ v.T @ (correlations[:, None] * (u.T @ text_whitening))
    return AffineMap(matrix, sound_mean - matrix @ text_mean)


def _roots(covariance: Float[np.ndarray, "dim dim"]) -> tuple[np.ndarray, np.ndarray]:
    """The inverse square root of a covariance, and its square root."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0) + _RIDGE * max(float(values.mean()), 1e-12)
    return (vectors / np.sqrt(values)) @ vectors.T, (vectors * np.sqrt(values)) @ vectors.T
