"""Attention over positions with a bias and a key mask: one product for all heads.

Tensors have four dimensions, so that torch uses fused GPU kernels. These never store the scores of all pairs in
float32, forward or backward, and they give the bias a gradient. The bias, a number for each pair of positions, is made
once for all blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

LOGIT_SCALE = 8.0
_ALIGNED = 8  # a GPU's kernel wants the rows of a bias to begin at multiples of so many numbers

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
            query.flatten(1, 2).unsqueeze(1),
            key.unsqueeze(1),
            value.unsqueeze(1),
            attn_mask=self.bias.flatten(1, 2).unsqueeze(1).to(query.dtype),
            dropout_p=dropout,
            scale=LOGIT_SCALE,
        )
        return attended.squeeze(1).unflatten(1, (query.shape[1], -1))


def dense_bias(
    bias: Float[Tensor, "heads time time"], key_mask: Bool[Tensor, "#batch time"], prefix: int
) -> Float[Tensor, "#batch heads time time"]:
    """`bias` where a query sees a key, which is not ahead of it or lies with it in the prefix, and is not hidden by
    `key_mask`; -inf elsewhere."""
    time = key_mask.shape[1]
    positions = torch.arange(time, device=key_mask.device)
    query, key = positions.unsqueeze(1), positions
    seen = ((key <= query) | ((query < prefix) & (key < prefix))) & key_mask.unsqueeze(1)
    masked = bias.masked_fill(~seen.unsqueeze(1), float("-inf"))
    return functional.pad(masked, (0, -time % _ALIGNED))[..., :time]
