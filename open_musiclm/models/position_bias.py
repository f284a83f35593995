"""Position biases: what each head adds to a logit for the distance from key to query, in positions and in time.

Positions count tokens. The sequences of a stage have different rates, so that the conditioning of the same time is a
different number of positions away from token to token; `ConditioningTimeBias` is a bias by time.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

T5_BUCKETS = 32
T5_MAX_DISTANCE = 128
_STEEPEST, _FLATTEST = 2.0, 0.05  # logits for each frame between: the initial slopes of the heads


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
    bucket 0, and only keys ahead of it, within a non-causal prefix, have different buckets.
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


class PositionTimes(NamedTuple):
    """The times of a window's positions, in seconds from its start.

    A position predicts the next token, whose frame is at `predicted`, and is attended to as its own token, whose frame
    is at `own`. `predicts` is 1 for the positions of the predicted sequence and 0 for the rest; `frame_hz` is the frame
    rate of conditioning tokens, and 0 for positions without a time.
    """

    predicted: Float[Tensor, "positions"]
    predicts: Float[Tensor, "positions"]
    own: Float[Tensor, "positions"]
    frame_hz: Float[Tensor, "positions"]

    def frames_between(self, queries: Int[Tensor, "queries"], keys: int) -> Float[Tensor, "queries keys"]:
        """Conditioning frames from each of the first `keys` positions to what `queries` predict."""
        predicted, predicts = self.predicted[queries].unsqueeze(1), self.predicts[queries].unsqueeze(1)
        return (predicted - self.own[:keys]).abs() * self.frame_hz[:keys] * predicts


class ConditioningTimeBias(nn.Module):
    """A trained penalty per head for each frame between a conditioning token and what is predicted.

    The slopes of the heads start differently, as ALiBi's (Press et al. 2021).
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_slopes = nn.Parameter(torch.linspace(math.log(_STEEPEST), math.log(_FLATTEST), heads))

    def slopes(self) -> Float[Tensor, "heads"]:
        """Logits for each frame, at least 0."""
        return self.log_slopes.exp()

    def forward(self, frames: Float[Tensor, "queries keys"]) -> Float[Tensor, "heads queries keys"]:
        """The bias of every head at each distance in frames."""
        return -self.slopes()[:, None, None] * frames


def toeplitz_bias(by_distance: Float[Tensor, "heads distances"], time: int) -> Float[Tensor, "heads time time"]:
    """The bias from each of `time` queries to each key, out of that at the distances -ahead, -ahead + 1, ... time - 1.

    Keys further ahead share the bias of distance -ahead. The matrix is Toeplitz and made of views: indexing would make
    a GPU sort all pairs in the backward pass.
    """
    further = by_distance[:, :1].expand(-1, max(2 * time - 1 - by_distance.shape[1], 0))
    falling = torch.cat((further, by_distance), dim=1)[:, 1 - 2 * time :].flip(1)
    return falling.unfold(1, time, 1).flip(1)


def bias_by_time(
    time_bias: ConditioningTimeBias | None, times: PositionTimes, queries: Int[Tensor, "queries"], keys: int
) -> Float[Tensor, "heads queries keys"] | None:
    """The bias from the first `keys` positions to `queries`; None in a stage without it."""
    return None if time_bias is None else time_bias(times.frames_between(queries, keys))


def pairwise_bias(
    by_distance: Float[Tensor, "heads distances"],
    time_bias: ConditioningTimeBias | None,
    times: PositionTimes,
    time: int,
) -> Float[Tensor, "heads time time"]:
    """The bias from each of the first `time` positions to each, by distance and, in a stage that has it, by time."""
    bias = toeplitz_bias(by_distance, time)
    by_time = bias_by_time(time_bias, times, torch.arange(time, device=bias.device), time)
    return bias if by_time is None else bias + by_time
