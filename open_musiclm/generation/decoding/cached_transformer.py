"""The transformer with a KV cache: the outputs of `Transformer.forward`, one new position at a time.

The cache is static: a decode step runs the same operations on the same memory every time, so that it can be captured as
one CUDA graph. Attention is computed in float32 whatever the precision of the weights.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from open_musiclm.generation.decoding.packed_linear import PackedLinear
from open_musiclm.models.attention import LOGIT_SCALE, dense_bias
from open_musiclm.models.position_bias import PositionTimes, bias_by_time, pairwise_bias
from open_musiclm.models.transformer import (
    CONVOLUTION_WIDTH,
    HEAD_DIM,
    Attention,
    Block,
    FeedForward,
    Transformer,
)

_SMALLEST_NORM = 1e-12


@dataclass
class LayerCache:
    """One block's keys and values of every position, and the last inputs of its convolution."""

    keys: Float[Tensor, "batch capacity head_dim"]
    values: Float[Tensor, "batch capacity head_dim"]
    recent: Float[Tensor, "batch recent channels"]


@dataclass
class KVCache:
    """Keys and values of one window: memory for `capacity` positions, of which the first `position` are filled.

    `bias_by_distance` begins with minus infinity, for the keys ahead, then has the bias at distance 0, 1, ...
    """

    layers: list[LayerCache]
    bias_by_distance: Float[Tensor, "heads distances"]
    times: PositionTimes
    key_mask: Bool[Tensor, "batch capacity"]
    position: Int[Tensor, "1"]

    @property
    def capacity(self) -> int:
        """The number of positions that fit."""
        return self.key_mask.shape[1]


class CachedTransformer:
    """`transformer`'s weights in `precision`, arranged for decode steps; keeps no reference to the transformer."""

    def __init__(self, transformer: Transformer, precision: torch.dtype) -> None:
        self.precision = precision
        self.prefix = transformer.non_causal_prefix_size
        self.position_bias = transformer.position_bias
        self.time_bias = transformer.time_bias
        self.blocks = [
            (_CachedAttention(block.attention, precision), _CachedFeedForward(block.feedforward, precision))
            for block in transformer.blocks
            if isinstance(block, Block)
        ]
        self.norm = transformer.norm.gamma.detach().to(precision)
        self.hidden_channels = transformer.hidden_channels

    def empty_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `capacity` positions."""
        device = self.norm.device
        layers = [
            LayerCache(
                keys=torch.zeros(batch, capacity, HEAD_DIM, device=device),
                values=torch.zeros(batch, capacity, HEAD_DIM, device=device),
                recent=torch.zeros(
                    batch, CONVOLUTION_WIDTH - 1, self.hidden_channels, device=device, dtype=self.precision
                ),
            )
            for _ in self.blocks
        ]
        bias = self.position_bias(torch.arange(capacity, device=device)).t()
        return KVCache(
            layers,
            bias_by_distance=functional.pad(bias, (1, 0), value=float("-inf")),
            times=PositionTimes(*(torch.zeros(capacity, device=device) for _ in PositionTimes._fields)),
            key_mask=torch.ones(batch, capacity, dtype=torch.bool, device=device),
            position=torch.zeros(1, dtype=torch.long, device=device),
        )

    def prefill(
        self,
        x: Float[Tensor, "batch time dim"],
        key_mask: Bool[Tensor, "batch time"],
        times: PositionTimes,
        cache: KVCache,
    ) -> Float[Tensor, "batch dim"]:
        """Runs the first positions of a window and overwrites the cache; returns the output of the last one.

        Keys are attended to where `key_mask` is true, now and in all later steps. `times` covers the whole capacity.
        """
        return self._normalized(self._run_first(x, key_mask, times, cache)[:, -1])

    def outputs(
        self,
        x: Float[Tensor, "batch time dim"],
        key_mask: Bool[Tensor, "batch time"],
        times: PositionTimes,
        cache: KVCache,
    ) -> Float[Tensor, "batch time dim"]:
        """As `prefill`, but the outputs of all these positions."""
        return self._normalized(self._run_first(x, key_mask, times, cache))

    def _run_first(
        self,
        x: Float[Tensor, "batch time dim"],
        key_mask: Bool[Tensor, "batch time"],
        times: PositionTimes,
        cache: KVCache,
    ) -> Float[Tensor, "batch time dim"]:
        time = x.shape[1]
        for old, new in zip(cache.times, times, strict=True):
            old.copy_(new)
        cache.key_mask[:, :time] = key_mask
        cache.key_mask[:, time:] = True
        positions = torch.arange(time, device=x.device)
        bias = self._prefix_bias(key_mask, cache.times)
        for layer in cache.layers:
            layer.recent.zero_()
        x = self._run_blocks(x, bias, cache, positions, time)
        cache.position.fill_(time)
        return x

    def decode_step(self, x: Float[Tensor, "batch dim"], cache: KVCache, attended: int) -> Float[Tensor, "batch dim"]:
        """The output at the next position, equal to `Transformer.forward`'s; not within the non-causal prefix.

        Attends to the first `attended` positions of the cache, which must include all filled ones.
        """
        x = self._run_blocks(x.unsqueeze(1), self._step_bias(cache, attended), cache, cache.position, attended)
        cache.position.add_(1)
        return self._normalized(x[:, 0])

    def _run_blocks(
        self,
        x: Float[Tensor, "batch time dim"],
        bias: Float[Tensor, "batch rows attended"],
        cache: KVCache,
        positions: Int[Tensor, "time"],
        attended: int,
    ) -> Float[Tensor, "batch time dim"]:
        for (attention, feedforward), layer in zip(self.blocks, cache.layers, strict=True):
            x = x + attention(x, bias, layer, positions, attended)
            x = x + feedforward(x, layer)
        return x

    def _normalized(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return functional.layer_norm(x, self.norm.shape, self.norm)

    def _step_bias(self, cache: KVCache, attended: int) -> Float[Tensor, "batch heads attended"]:
        """The bias of the next position to the keys: minus infinity for those ahead and those hidden."""
        keys = torch.arange(attended, device=cache.position.device)
        index = (cache.position - keys + 1).clamp_(min=0)
        row = cache.bias_by_distance.index_select(1, index)
        by_time = bias_by_time(self.time_bias, cache.times, cache.position, attended)
        if by_time is not None:
            row = row + by_time.squeeze(1)
        return row.unsqueeze(0).masked_fill(~cache.key_mask[:, :attended].unsqueeze(1), float("-inf"))

    def _prefix_bias(
        self, key_mask: Bool[Tensor, "batch time"], times: PositionTimes
    ) -> Float[Tensor, "batch rows time"]:
        """The bias among the first positions, a row for each of them and each head (heads vary fastest)."""
        time = key_mask.shape[1]
        distances = torch.arange(-max(self.prefix - 1, 0), time, device=key_mask.device)
        bias = pairwise_bias(self.position_bias(distances).t(), self.time_bias, times, time)
        return dense_bias(bias, key_mask, self.prefix).transpose(1, 2).flatten(1, 2)


class _CachedAttention:
    """Multi-query attention with queries, key and value from one product.

    Queries are normalised to length 1 after their product, so that of the layer norm before it only the centring and
    gamma matter, and both are linear: they become part of the weight.
    """

    def __init__(self, attention: Attention, precision: torch.dtype) -> None:
        self.heads = attention.heads
        query = attention.to_query.weight.detach() * attention.norm.gamma.detach()
        query = query - query.mean(dim=1, keepdim=True)
        self.to_all = PackedLinear(torch.cat((query, attention.to_key_value.weight.detach())).to(precision))
        self.to_output = PackedLinear(attention.to_output.weight.to(precision))
        query_scale = attention.query_scale.detach() * LOGIT_SCALE
        self.scale = torch.cat((query_scale.expand(self.heads, -1), attention.key_scale.detach().unsqueeze(0)))

    def __call__(
        self,
        x: Float[Tensor, "batch time dim"],
        bias: Float[Tensor, "batch rows attended"],
        layer: LayerCache,
        positions: Int[Tensor, "time"],
        attended: int,
    ) -> Float[Tensor, "batch time dim"]:
        by_head = self.to_all(x).unflatten(-1, (self.heads + 2, HEAD_DIM))
        directions = by_head[:, :, :-1].float()
        length = torch.linalg.vector_norm(directions, dim=-1, keepdim=True).clamp_(min=_SMALLEST_NORM)
        directions = directions.div(length).mul_(self.scale)
        layer.keys.index_copy_(1, positions, directions[:, :, -1])
        layer.values.index_copy_(1, positions, by_head[:, :, -1].float())
        query = directions[:, :, :-1].flatten(1, 2)
        logits = torch.baddbmm(bias, query, layer.keys[:, :attended].transpose(1, 2))
        output = torch.bmm(logits.softmax(dim=-1), layer.values[:, :attended])
        return self.to_output(output.view(x.shape[0], x.shape[1], -1).to(x.dtype))


class _CachedFeedForward:
    """Norm, widen, (convolve,) GEGLU, norm, narrow; the last inputs of the convolution are cached."""

    def __init__(self, feedforward: FeedForward, precision: torch.dtype) -> None:
        self.norm = feedforward.norm.gamma.detach().to(precision)
        self.to_hidden = PackedLinear(feedforward.to_hidden.weight.to(precision))
        self.taps = None
        if feedforward.convolution is not None:
            self.taps = feedforward.convolution.weight.detach().squeeze(1).t().to(precision).contiguous()
        self.hidden_norm = feedforward.hidden_norm.gamma.detach().to(precision)
        self.to_output = PackedLinear(feedforward.to_output.weight.to(precision))

    def __call__(self, x: Float[Tensor, "batch time dim"], layer: LayerCache) -> Float[Tensor, "batch time dim"]:
        hidden = self.to_hidden(functional.layer_norm(x, self.norm.shape, self.norm))
        if self.taps is not None:
            hidden = self._convolved(hidden, layer, self.taps)
        value, gate = hidden.chunk(2, dim=-1)
        gated = functional.gelu(gate).mul_(value)
        return self.to_output(functional.layer_norm(gated, self.hidden_norm.shape, self.hidden_norm))

    def _convolved(
        self,
        hidden: Float[Tensor, "batch time channels"],
        layer: LayerCache,
        taps: Float[Tensor, "width channels"],
    ) -> Float[Tensor, "batch time channels"]:
        time, recent = hidden.shape[1], CONVOLUTION_WIDTH - 1
        extended = torch.cat((layer.recent, hidden), dim=1)
        layer.recent.copy_(extended[:, -recent:])
        convolved = extended[:, :time] * taps[0]
        for offset in range(1, CONVOLUTION_WIDTH):
            convolved.addcmul_(extended[:, offset : offset + time], taps[offset])
        return convolved
