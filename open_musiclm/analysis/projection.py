"""Two numbers for every embedding, to draw them: PCA, and UMAP (McInnes et al. 2018) where umap-learn is installed."""

import warnings

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from open_musiclm.analysis.options import SEED
from open_musiclm.errors import UserNotice

_NEIGHBOURS = 15
_FEWEST_POINTS = 5


def pca_map(points: Float[np.ndarray, "points dim"]) -> tuple[Float[np.ndarray, "points 2"], float]:
    """The first two principal components, and the share of the variance that they have.

    Fewer than five points are on a line, one beside the other; points that are all the same are one.
    """
    if len(points) < _FEWEST_POINTS:
        return np.zeros((len(points), 2)) + np.arange(len(points))[:, None], 1.0
    if not np.ptp(points, axis=0).any():
        return np.zeros((len(points), 2)), 1.0
    fitted = PCA(2, svd_solver="covariance_eigh").fit(points)
    return fitted.transform(points), float(fitted.explained_variance_ratio_.sum())


def umap_map(points: Float[np.ndarray, "points dim"]) -> Float[np.ndarray, "points 2"] | None:
    """UMAP by cosine with umap-learn's defaults, seeded; None, with a UserNotice, where it is not installed.

    None also for fewer than five points.
    """
    if len(points) < _FEWEST_POINTS:
        return None
    try:
        from umap import UMAP
    except ImportError:
        lacking = "umap-learn is not installed: the map has PCA only; pip install 'open_musiclm[analyze]'"
        warnings.warn(UserNotice(lacking), stacklevel=2)
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread with a seed; of few points
        reducer = UMAP(n_neighbors=min(_NEIGHBOURS, len(points) - 1), metric="cosine", random_state=SEED)
        return np.asarray(reducer.fit_transform(points), dtype=np.float64)
