"""The transformer of all three stages: multi-query attention with a position bias, convolutional feed-forward.

The golden cases pin it numerically (DESIGN section 3). All of it runs over whole sequences; how generation gets
the same numbers a position at a time is in `open_musiclm.models.incremental`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from open_musiclm.config import TransformerConfig
from open_musiclm.models.position_bias import ContinuousPositionBias, NoPositionBias, T5PositionBias

HEAD_DIM = 64
LOGIT_SCALE = 8.0
CONVOLUTION_WIDTH = 3


class LayerNorm(nn.Module):
    """Layer norm with a learned scale and no shift."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        return functional.layer_norm(x, self.gamma.shape, self.gamma)


class Attention(nn.Module):
    """Multi-query attention: one key and value head for all query heads, L2-normalised queries and keys.

    Queries see the normalised input, keys and values the bare one.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = LayerNorm(dim)
        self.to_query = nn.Linear(dim, heads * HEAD_DIM, bias=False)
        self.to_key_value = nn.Linear(dim, 2 * HEAD_DIM, bias=False)
        self.query_scale = nn.Parameter(torch.ones(HEAD_DIM))
        self.key_scale = nn.Parameter(torch.ones(HEAD_DIM))
        self.to_output = nn.Linear(heads * HEAD_DIM, dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        bias: Float[Tensor, "#batch heads time keys"],
    ) -> Float[Tensor, "batch time dim"]:
        """`bias` is -inf where a query must not see a key."""
        query = self.to_query(self.norm(x)).unflatten(-1, (self.heads, HEAD_DIM)).transpose(1, 2)
        key, value = self.to_key_value(x).chunk(2, dim=-1)
        query = functional.normalize(query, dim=-1) * self.query_scale
        key = functional.normalize(key, dim=-1) * self.key_scale
        # The heads share keys and values: as rows of one head they are one large product instead of many small ones.
        attended = functional.scaled_dot_product_attention(
            query.flatten(1, 2),
            key,
            value,
            attn_mask=bias.flatten(1, 2),
            dropout_p=self.dropout if self.training else 0.0,
            scale=LOGIT_SCALE,
        ).unflatten(1, (self.heads, -1))
        return self.to_output(attended.transpose(1, 2).flatten(2))


class CausalConvolution(nn.Module):
    """A depthwise convolution over the present and the two positions before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, CONVOLUTION_WIDTH))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time channels"]:
        """Before the first position there is nothing: zeros."""
        extended = functional.pad(x, (0, 0, CONVOLUTION_WIDTH - 1, 0))
        oldest, older, present = self.weight.squeeze(1).unbind(-1)
        time = x.shape[1]
        return extended[:, :time] * oldest + extended[:, 1 : time + 1] * older + x * present


class FeedForward(nn.Module):
    """Norm, widen, (convolve,) GEGLU, norm, dropout, narrow (the paper's feed-forward with a convolution)."""

    def __init__(self, dim: int, dropout: float, convolve: bool) -> None:
        super().__init__()
        inner = feedforward_width(dim, convolve)
        self.norm = LayerNorm(dim)
        self.to_hidden = nn.Linear(dim, 2 * inner, bias=False)
        self.convolution = CausalConvolution(2 * inner) if convolve else None
        self.hidden_norm = LayerNorm(inner)
        self.dropout = nn.Dropout(dropout)
        self.to_output = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Each position sees itself, and through the convolution the two before it."""
        hidden = self.to_hidden(self.norm(x))
        if self.convolution is not None:
            hidden = self.convolution(hidden)
        value, gate = hidden.chunk(2, dim=-1)
        return self.to_output(self.dropout(self.hidden_norm(value * functional.gelu(gate))))


def feedforward_width(dim: int, convolve: bool) -> int:
    """The inner width of a feed-forward: 8/3 of `dim` with a convolution, 4 times without."""
    return int(dim * 8 / 3) if convolve else 4 * dim


class Block(nn.Module):
    """x + attention, then x + feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config.dim, config.heads, config.attn_dropout)
        self.feedforward = FeedForward(config.dim, config.ff_dropout, config.use_conv_ff)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        bias: Float[Tensor, "#batch heads time keys"],
    ) -> Float[Tensor, "batch time dim"]:
        """See `Attention.forward` for the arguments."""
        x = x + self.attention(x, bias)
        return x + self.feedforward(x)


class Transformer(nn.Module):
    """A causal transformer whose first `non_causal_prefix_size` positions see each other both ways."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.non_causal_prefix_size = config.non_causal_prefix_size
        self.hidden_channels = 2 * feedforward_width(config.dim, config.use_conv_ff)
        self.position_bias = _position_bias(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(config.dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], key_mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """All positions at once; keys are seen where `key_mask` is true."""
        length = x.shape[1]
        positions = torch.arange(length, device=x.device)
        bias = self._bias(self._bias_by_distance(length), positions, key_mask, length).to(x.dtype)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)

    def _bias_by_distance(self, length: int) -> Float[Tensor, "heads distances"]:
        """The bias at the distances -(prefix - 1) .. length - 1: only the prefix looks ahead."""
        ahead = max(self.non_causal_prefix_size - 1, 0)
        distances = torch.arange(-ahead, length, device=self.norm.gamma.device)
        return self.position_bias(distances).t()

    def _bias(
        self,
        bias_by_distance: Float[Tensor, "heads distances"],
        positions: Int[Tensor, "time"],
        key_mask: Bool[Tensor, "batch keys"] | None,
        keys: int,
    ) -> Float[Tensor, "#batch heads time keys"]:
        """What is added to the logits: the position bias, or -inf where a query does not see a key."""
        prefix = self.non_causal_prefix_size
        query, key = positions.unsqueeze(1), torch.arange(keys, device=positions.device)
        seen = (key <= query) | ((query < prefix) & (key < prefix))
        index = (query - key).clamp(min=-max(prefix - 1, 0)) + max(prefix - 1, 0)
        seen = seen.unsqueeze(0) if key_mask is None else seen & key_mask.unsqueeze(1)
        return bias_by_distance[:, index].masked_fill(~seen.unsqueeze(1), float("-inf"))


def _position_bias(config: TransformerConfig) -> nn.Module:
    if config.relative_position_bias_type == "continuous":
        return ContinuousPositionBias(config.dim // 2, config.heads)
    if config.relative_position_bias_type == "t5":
        return T5PositionBias(config.heads)
    return NoPositionBias(config.heads)
