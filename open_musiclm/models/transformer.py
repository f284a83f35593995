"""The transformer of all three stages: multi-query attention with a position bias, convolutional feed-forward.

All of it runs over whole sequences; `open_musiclm.generation.decoding.cached_transformer` computes the same, a position
at a time. The golden cases in the tests pin it numerically.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from open_musiclm.config import TransformerConfig
from open_musiclm.models.attention import Attend, DenseAttention, dense_bias
from open_musiclm.models.example_rng import ExampleDropout, Seeds, derive_seeds
from open_musiclm.models.position_bias import (
    ConditioningTimeBias,
    ContinuousPositionBias,
    NoPositionBias,
    PositionTimes,
    T5PositionBias,
    pairwise_bias,
)

HEAD_DIM = 64
CONVOLUTION_WIDTH = 3


class LayerNorm(nn.Module):
    """Layer norm with a learned scale and no shift."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """x normalised over its last dimension, times `gamma`."""
        return functional.layer_norm(x, self.gamma.shape, self.gamma)


class Attention(nn.Module):
    """Multi-query attention: one key and value head for all query heads, L2-normalised queries and keys.

    Queries come from the normalised input, keys and values from the input itself.
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
        attend: Attend,
        seeds: Seeds | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """`attend` knows the bias and which keys are seen.

        In training mode there is dropout if there are `seeds`. It does not follow them: torch's kernels take no mask.
        """
        query = self.to_query(self.norm(x)).unflatten(-1, (self.heads, HEAD_DIM)).transpose(1, 2)
        key, value = self.to_key_value(x).chunk(2, dim=-1)
        # in the precision of the products, which the scales, float32 in mixed precision, would undo
        query = (functional.normalize(query, dim=-1) * self.query_scale).to(value.dtype)
        key = (functional.normalize(key, dim=-1) * self.key_scale).to(value.dtype)
        attended = attend(query, key, value, self.dropout if self.training and seeds is not None else 0.0)
        return self.to_output(attended.transpose(1, 2).flatten(2))


class CausalConvolution(nn.Module):
    """A depthwise convolution over the present and the two positions before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, CONVOLUTION_WIDTH))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time channels"]:
        """Zeros precede the first position."""
        extended, weight = functional.pad(x, (0, 0, CONVOLUTION_WIDTH - 1, 0)), self.weight.to(x.dtype)
        time = x.shape[1]
        if x.device.type == "cpu":  # channels last is the one layout with a fast kernel there
            channels = weight.shape[0]
            image = extended.transpose(1, 2).unsqueeze(2)
            return functional.conv2d(image, weight.unsqueeze(2), groups=channels).squeeze(2).transpose(1, 2)
        oldest, older, present = weight.squeeze(1).unbind(-1)
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
        self.dropout = ExampleDropout(dropout)
        self.to_output = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time dim"], seeds: Seeds | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """Each position sees itself, and through the convolution the two before it; dropout follows `seeds`."""
        hidden = self.to_hidden(self.norm(x))
        if self.convolution is not None:
            hidden = self.convolution(hidden)
        value, gate = hidden.chunk(2, dim=-1)
        return self.to_output(self.dropout(self.hidden_norm(value * functional.gelu(gate)), seeds))


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
        attend: Attend,
        seeds: Seeds | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """See `Attention.forward` and `FeedForward.forward` for the arguments."""
        x = x + self.attention(x, attend, seeds)
        return x + self.feedforward(x, seeds)


class Transformer(nn.Module):
    """A causal transformer whose first `non_causal_prefix_size` positions see each other both ways."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.non_causal_prefix_size = config.non_causal_prefix_size
        self.gradient_checkpointing = False  # compute the blocks again for their gradients instead of keeping them
        self.hidden_channels = 2 * feedforward_width(config.dim, config.use_conv_ff)
        self.position_bias = _position_bias(config)
        self.time_bias = ConditioningTimeBias(config.heads) if config.conditioning_time_bias else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(config.dim)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        times: PositionTimes,
        key_mask: Bool[Tensor, "batch time"] | None = None,
        seeds: Seeds | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """All positions at once; keys are seen where `key_mask` is true. In training mode there is dropout if there are
        `seeds`."""
        if key_mask is None:
            key_mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        attend = self._attend(key_mask, times)
        for number, block in enumerate(self.blocks):
            own = None if seeds is None else derive_seeds(seeds, number)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, attend, seeds=own, use_reentrant=False)
            else:
                x = block(x, attend, seeds=own)
        return self.norm(x)

    def compile_blocks(self) -> None:
        """Has torch compile every block; names and shapes of the weights stay as they are."""
        for block in self.blocks:
            block.compile()

    def _attend(self, key_mask: Bool[Tensor, "batch time"], times: PositionTimes) -> Attend:
        """How the blocks attend over whole sequences."""
        time, precision = key_mask.shape[1], products_precision(key_mask.device)
        bias = pairwise_bias(self._bias_by_distance(time), self.time_bias, times, time)
        # in the precision of the products from here on, once for all blocks
        return DenseAttention(dense_bias(bias.to(precision), key_mask, self.non_causal_prefix_size))

    def _bias_by_distance(self, length: int) -> Float[Tensor, "heads distances"]:
        """The bias at the distances -(prefix - 1) .. length - 1: only the prefix looks ahead."""
        ahead = max(self.non_causal_prefix_size - 1, 0)
        distances = torch.arange(-ahead, length, device=self.norm.gamma.device)
        with torch.autocast(distances.device.type, enabled=False):  # bfloat16 cannot tell large distances apart
            return self.position_bias(distances).t()


def products_precision(device: torch.device) -> torch.dtype:
    """What matrix products are computed in: the mixed precision's type, or float32."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else torch.float32


def _position_bias(config: TransformerConfig) -> nn.Module:
    if config.relative_position_bias_type == "continuous":
        return ContinuousPositionBias(config.dim // 2, config.heads)
    if config.relative_position_bias_type == "t5":
        return T5PositionBias(config.heads)
    return NoPositionBias(config.heads)
