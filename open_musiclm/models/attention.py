"""Attention over positions with a bias by distance and a key mask: one dense product, or FlexAttention on a GPU.

Both see the same keys and give the same numbers; FlexAttention never holds the scores of all pairs of positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from open_musiclm.models.position_bias import Moments

LOGIT_SCALE = 8.0

Queries = Float[Tensor, "batch heads time head_dim"]
Keys = Float[Tensor, "batch keys head_dim"]
Attend = Callable[[Queries, Keys, Keys, float], Queries]


@dataclass(frozen=True)
class DenseAttention:
    """`bias` [#batch, heads, time, keys] is added to the logits, -inf where a query must not see a key."""

    bias: Float[Tensor, "#batch heads time keys"]

    def __call__(self, query: Queries, key: Keys, value: Keys, dropout: float = 0.0) -> Queries:
        """What every query takes from the keys it sees; all heads share keys and values."""
        # As rows of one head the heads are one large product instead of many small ones.
        attended = functional.scaled_dot_product_attention(
            query.flatten(1, 2),
            key,
            value,
            attn_mask=self.bias.flatten(1, 2).to(query.dtype),
            dropout_p=dropout,
            scale=LOGIT_SCALE,
        )
        return attended.unflatten(1, (query.shape[1], -1))


@dataclass(frozen=True)
class FlexibleAttention:
    """The bias at distance -ahead, -ahead + 1, ... of every head, and which blocks of keys are seen at all.

    `slopes` are those of a `ConditioningTimeBias`, if there is one.
    """

    bias_by_distance: Float[Tensor, "heads distances"]
    ahead: int
    seen: BlockMask
    slopes: Float[Tensor, "heads"] | None
    moments: Moments

    @classmethod
    def over(
        cls,
        bias_by_distance: Float[Tensor, "heads distances"],
        key_mask: Bool[Tensor, "batch time"],
        prefix: int,
        slopes: Float[Tensor, "heads"] | None,
        moments: Moments,
    ) -> "FlexibleAttention":
        """Causal over as many positions as `key_mask` has, but for the first `prefix`, which see each other."""
        batch, time = key_mask.shape
        seen = create_block_mask(
            lambda b, h, query, key: ((key <= query) | ((query < prefix) & (key < prefix))) & key_mask[b, key],
            *(batch, None, time, time),
            device=key_mask.device,
            _compile=key_mask.device.type == "cuda",
        )
        return cls(bias_by_distance, max(prefix - 1, 0), seen, slopes, moments)

    def __call__(self, query: Queries, key: Keys, value: Keys, dropout: float = 0.0) -> Queries:
        """As `DenseAttention`; without dropout."""
        assert dropout == 0
        run: Callable[..., Any] = _compiled() if query.device.type == "cuda" else flex_attention
        return run(
            query,
            key.unsqueeze(1),
            value.unsqueeze(1),
            score_mod=self._biased(),
            block_mask=self.seen,
            scale=LOGIT_SCALE,
            enable_gqa=True,
        )

    def _biased(self) -> Callable[..., Tensor]:
        """What adds the biases to a score of batch b, head, query i, key j: those of `dense_bias`, and by time those of
        `ConditioningTimeBias` at `Moments.steps_between`, as torch compiles them into its kernel."""
        bias, ahead, slopes = self.bias_by_distance, self.ahead, self.slopes
        if slopes is None:
            return lambda score, b, head, i, j: score + bias[head, (i - j).clamp(min=-ahead) + ahead]
        asked, asking, heard, rates = self.moments
        return lambda score, b, head, i, j: (
            score
            + bias[head, (i - j).clamp(min=-ahead) + ahead]
            - slopes[head] * (asked[i] - heard[j]).abs() * rates[j] * asking[i]
        )


def dense_bias(
    bias_by_distance: Float[Tensor, "heads distances"],
    positions: Int[Tensor, "time"],
    key_mask: Bool[Tensor, "#batch keys"],
    prefix: int,
    by_time: Float[Tensor, "heads time keys"] | None,
) -> Float[Tensor, "#batch heads time keys"]:
    """What `DenseAttention` adds for the queries at `positions`: the biases, or -inf where a key is not seen."""
    query, key = positions.unsqueeze(1), torch.arange(key_mask.shape[1], device=positions.device)
    seen = ((key <= query) | ((query < prefix) & (key < prefix))) & key_mask.unsqueeze(1)
    ahead = max(prefix - 1, 0)
    index = (query - key).clamp(min=-ahead) + ahead
    bias = bias_by_distance[:, index] if by_time is None else bias_by_distance[:, index] + by_time
    return bias.masked_fill(~seen.unsqueeze(1), float("-inf"))


_flex: list[Callable[..., Any]] = []


def _compiled() -> Callable[..., Any]:
    """FlexAttention compiled once for the process: run as it is, it would hold all scores."""
    if not _flex:
        _flex.append(torch.compile(flex_attention, dynamic=False))
    return _flex[0]
