"""MAUVE (Pillutla et al. 2021) of two sets of vectors, and its logarithm, the MAUVE audio divergence (MAD, Huang et al.
2025).

The definition and defaults of the package mauve-text. Its k-means is faiss's; here it is scikit-learn's, so that values
differ a little if clusters are not clear.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from torch import Tensor

VECTORS_PER_BUCKET = 10
EXPLAINED_VARIANCE = 0.9
SCALING = 5.0
CURVE_POINTS = 25
_RESTARTS, _MOST_ITERATIONS = 5, 500


@dataclass(frozen=True)
class Buckets:
    """The cluster of each vector of two sets that were clustered together, and the number of clusters."""

    evaluated: Int[np.ndarray, "vectors"]
    reference: Int[np.ndarray, "others"]
    count: int

    def histograms(self) -> tuple[Float[np.ndarray, "buckets"], Float[np.ndarray, "buckets"]]:
        """The share of each cluster in the evaluated set and in the reference."""
        counts = (np.bincount(labels, minlength=self.count) for labels in (self.evaluated, self.reference))
        evaluated, reference = (count / count.sum() for count in counts)
        return evaluated, reference


def cluster(evaluated: Float[Tensor, "vectors dim"], reference: Float[Tensor, "others dim"], seed: int) -> Buckets:
    """Vectors of length 1, on the principal axes that hold 90 % of the variance, in one cluster for every ten vectors
    of the smaller set. Raises ValueError if a set has fewer than two vectors."""
    fewest = min(len(evaluated), len(reference))
    if fewest < 2:
        raise ValueError("MAUVE takes two vectors of each set")
    count = max(2, round(fewest / VECTORS_PER_BUCKET))
    vectors = normalize(torch.cat((reference, evaluated)).double().numpy())
    if not np.ptp(vectors, axis=0).any():
        return Buckets(np.zeros(len(evaluated), np.int64), np.zeros(len(reference), np.int64), count)
    pca = PCA(svd_solver="covariance_eigh").fit(vectors)
    kept = int(np.argmax(np.cumsum(pca.explained_variance_ratio_) >= EXPLAINED_VARIANCE)) + 1
    reduced = pca.transform(vectors)[:, :kept].astype(np.float32)
    kmeans = KMeans(count, n_init=_RESTARTS, max_iter=_MOST_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer different vectors than clusters: some clusters stay empty
        labels = kmeans.fit_predict(reduced).astype(np.int64)
    return Buckets(labels[len(reference) :], labels[: len(reference)], count)


def mauve(evaluated: Float[np.ndarray, "buckets"], reference: Float[np.ndarray, "buckets"]) -> float:
    """The area under the divergence curve of two histograms: 1 where they are equal, near 0 if they share nothing."""
    curve = [(1.0, 0.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, CURVE_POINTS):
        mixture = weight * evaluated + (1 - weight) * reference
        divergences = (_divergence(reference, mixture), _divergence(evaluated, mixture))
        curve.append((math.exp(-SCALING * divergences[0]), math.exp(-SCALING * divergences[1])))
    x, y = np.array([*curve, (0.0, 1.0)]).T
    return float(np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2))


def mauve_divergence(buckets: Buckets) -> float:
    """-ln MAUVE: 0 where the histograms are equal; lower is better."""
    return -math.log(mauve(*buckets.histograms()))


def _divergence(left: Float[np.ndarray, "buckets"], right: Float[np.ndarray, "buckets"]) -> float:
    """Kullback-Leibler, in nats."""
    there = left > 0
    return float(np.sum(left[there] * np.log(left[there] / right[there])))
