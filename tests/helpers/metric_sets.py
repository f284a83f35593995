"""Sets of vectors that the stored values of other packages were computed from; see tests/golden/metrics/README.md."""

import numpy as np
from jaxtyping import Float

SEED_OF_DRAWS = 5


def random_sets() -> tuple[Float[np.ndarray, "1100 6"], Float[np.ndarray, "700 6"]]:
    """An evaluated set and a reference: correlated, shifted, and of different sizes."""
    rng = np.random.default_rng(20)
    mixing = rng.normal(size=(6, 6))
    evaluated = rng.normal(size=(1100, 6)) @ mixing * 0.8 + 0.3
    return evaluated, rng.normal(size=(700, 6)) @ mixing


def clustered_sets() -> tuple[Float[np.ndarray, "60 5"], Float[np.ndarray, "80 5"]]:
    """Six clusters that every k-means finds, used unequally by the two sets, one by the evaluated set alone."""
    rng = np.random.default_rng(21)
    centres = np.concatenate((np.eye(5), -np.ones((1, 5))))
    shares = ((20, 15, 10, 5, 4, 6), (10, 20, 10, 20, 20, 0))
    evaluated, reference = (
        np.repeat(centres, counts, axis=0) + rng.normal(0, 0.01, (sum(counts), 5)) for counts in shares
    )
    return evaluated, reference
