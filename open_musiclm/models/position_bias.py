"""Relative position biases: what a head adds to a logit for the distance from key to query (DESIGN section 3)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

T5_BUCKETS = 32
T5_MAX_DISTANCE = 128


class ContinuousPositionBias(nn.Module):
    """An MLP from the distance, as a float, to one bias per head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(1, dim), nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, heads)]
        )

    def forward(self, distances: Int[Tensor, "distances"]) -> Float[Tensor, "distances heads"]:
        """The bias of every head at each distance i - j, in positions."""
        hidden = distances.unsqueeze(-1).float()
        for layer in self.layers[:-1]:
            hidden = functional.silu(layer(hidden))
        return self.layers[-1](hidden)


class T5PositionBias(nn.Module):
    """T5's buckets, exact up to 15 positions, then logarithmic up to 128 - of the distance ahead.

    Released checkpoints were trained with the sign reversed: every key at or before the query falls into
    bucket 0, and only the keys ahead of it, within a non-causal prefix, are told apart.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.buckets = nn.Embedding(T5_BUCKETS, heads)

    def forward(self, distances: Int[Tensor, "distances"]) -> Float[Tensor, "distances heads"]:
        """The bias of every head at each distance i - j, in positions."""
        ahead = (-distances).clamp(min=0)
        exact = T5_BUCKETS // 2
        logarithmic = (ahead.clamp(min=1).float() / exact).log() / math.log(T5_MAX_DISTANCE / exact)
        far = (exact + (logarithmic * (T5_BUCKETS - exact)).long()).clamp(max=T5_BUCKETS - 1)
        return self.buckets(torch.where(ahead < exact, ahead, far))


class NoPositionBias(nn.Module):
    """No bias: positions come from the absolute embeddings or the convolutions alone."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, distances: Int[Tensor, "distances"]) -> Float[Tensor, "distances heads"]:
        """Zeros."""
        return torch.zeros(distances.shape[0], self.heads, device=distances.device)
