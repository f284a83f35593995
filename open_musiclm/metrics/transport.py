"""The cost of matching two equally long token sequences, order aside: optimal transport between their histograms.

MusicLM (Agostinelli et al. 2023, section 6) takes the Euclidean distances of the tokens' centroids as costs and solves
the transport by Sinkhorn's approximation. Histograms of as many tokens each have an exact solution, an assignment.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def matching_cost(
    tokens: Int[Tensor, "length"], others: Int[Tensor, "length"], distances: Float[np.ndarray, "codes codes"]
) -> float:
    """The mean distance over which a token has to be moved so that one sequence has the other's histogram."""
    costs = distances[np.ix_(tokens.numpy(), others.numpy())]
    return float(costs[linear_sum_assignment(costs)].mean())


def centroid_distances(centroids: Float[Tensor, "codes dim"]) -> Float[np.ndarray, "codes codes"]:
    """The Euclidean distance of every two centroids."""
    vectors = centroids.detach().cpu().double()
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist").numpy()
