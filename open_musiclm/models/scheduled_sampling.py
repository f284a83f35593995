"""Scheduled sampling: in training, part of the history is sampled from the stage's own predictions, as in generation.

A stage that has only seen real histories does not know its own errors (exposure bias). So it first draws every token
from what it predicts after the real history, all in parallel; then it learns to predict the real tokens after a history
in which some frames are drawn ones (Mihaylova and Martins 2019; Duckworth et al. 2019).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from open_musiclm.models.example_rng import Seeds, derive_seeds, uniform

_TEMPERATURE = 0.85  # of the draws: generation takes less than 1 too
_SHARES, _FRAMES, _DRAWS = 1 << 17, 1 << 18, 1 << 19  # the numbers that derive_seeds gets for each


def sampled_frames(seeds: Seeds, share: float, time: int) -> Bool[Tensor, "batch time"]:
    """In a `share` of the examples a random share of the frames, from none to all."""
    chosen, amount = uniform(derive_seeds(seeds, _SHARES), 2).unbind(1)
    amount = torch.where(chosen < share, amount, 0.0)
    return uniform(derive_seeds(seeds, _FRAMES), time) < amount[:, None]


def sampled_tokens(logits: Float[Tensor, "batch tokens classes"], seeds: Seeds) -> Int[Tensor, "batch tokens"]:
    """One class per token, drawn with the examples' own random numbers."""
    summed = (logits.float() / _TEMPERATURE).softmax(dim=-1).cumsum(dim=-1)
    numbers = uniform(derive_seeds(seeds, _DRAWS), logits.shape[1]).unsqueeze(-1)
    return torch.searchsorted(summed, numbers * summed[..., -1:], right=True).squeeze(-1).clamp(max=logits.shape[2] - 1)
