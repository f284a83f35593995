"""The transformer in generation: the numbers of `Transformer.forward`, a few new positions at a time.

What the weights allow to be computed once is computed once; what a window has seen so far is a static `State`, so that
a step is the same operations on the same memory every time and can be captured as one graph. Attention itself is
float32 whatever the precision of the weights.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from open_musiclm.generation.linear import PackedLinear
from open_musiclm.models.attention import LOGIT_SCALE, dense_bias
from open_musiclm.models.position_bias import Moments, bias_between_all, bias_by_time
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
class LayerState:
    """What one block remembers: keys and values of every position, and its convolution's last inputs."""

    keys: Float[Tensor, "batch capacity head_dim"]
    values: Float[Tensor, "batch capacity head_dim"]
    recent: Float[Tensor, "batch recent channels"]


@dataclass
class State:
    """A window in the making, with room for `capacity` positions of which the first `position` are there.

    `bias_by_distance` begins with minus infinity, for the keys ahead, then has the bias at distance 0, 1, ...
    """

    layers: list[LayerState]
    bias_by_distance: Float[Tensor, "heads distances"]
    moments: Moments
    key_mask: Bool[Tensor, "batch capacity"]
    position: Int[Tensor, "1"]

    @property
    def capacity(self) -> int:
        """The number of positions that there is room for."""
        return self.key_mask.shape[1]


class IncrementalTransformer:
    """`transformer`'s weights in `precision`, arranged for steps; it keeps no other part of it alive."""

    def __init__(self, transformer: Transformer, precision: torch.dtype) -> None:
        self.precision = precision
        self.prefix = transformer.non_causal_prefix_size
        self.position_bias = transformer.position_bias
        self.time_bias = transformer.time_bias
        self.blocks = [_IncrementalBlock(block, precision) for block in transformer.blocks if isinstance(block, Block)]
        self.norm = transformer.norm.gamma.detach().to(precision)
        self.hidden_channels = transformer.hidden_channels

    def empty_state(self, batch: int, capacity: int) -> State:
        """Room for `capacity` positions, of which none is there."""
        device = self.norm.device
        layers = [
            LayerState(
                keys=torch.zeros(batch, capacity, HEAD_DIM, device=device),
                values=torch.zeros(batch, capacity, HEAD_DIM, device=device),
                recent=torch.zeros(
                    batch, CONVOLUTION_WIDTH - 1, self.hidden_channels, device=device, dtype=self.precision
                ),
            )
            for _ in self.blocks
        ]
        bias = self.position_bias(torch.arange(capacity, device=device)).t()
        return State(
            layers,
            bias_by_distance=functional.pad(bias, (1, 0), value=float("-inf")),
            moments=Moments(*(torch.zeros(capacity, device=device) for _ in Moments._fields)),
            key_mask=torch.ones(batch, capacity, dtype=torch.bool, device=device),
            position=torch.zeros(1, dtype=torch.long, device=device),
        )

    def begin(
        self, x: Float[Tensor, "batch time dim"], key_mask: Bool[Tensor, "batch time"], moments: Moments, state: State
    ) -> Tensor:
        """The first positions of a window, whatever the state held; returns the output of the last, [batch, dim].

        Keys are seen where `key_mask` is true, now and in all later steps. `moments` has all that there is room
        for.
        """
        time = x.shape[1]
        for held, given in zip(state.moments, moments, strict=True):
            held.copy_(given)
        state.key_mask[:, :time] = key_mask
        state.key_mask[:, time:] = True
        positions = torch.arange(time, device=x.device)
        bias = self._prefix_bias(key_mask, state.moments)
        for block, layer in zip(self.blocks, state.layers, strict=True):
            layer.recent.zero_()
            x = block(x, bias, layer, positions, seen=time)
        state.position.fill_(time)
        return self._normalized(x[:, -1])

    def step(self, x: Float[Tensor, "batch dim"], state: State, seen: int) -> Float[Tensor, "batch dim"]:
        """The next position, equal to its row of `Transformer.forward` over all of them; not within the prefix.

        Only the first `seen` positions are looked at, which must be enough.
        """
        bias = self._step_bias(state, seen)
        x = x.unsqueeze(1)
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x = block(x, bias, layer, state.position, seen)
        state.position.add_(1)
        return self._normalized(x[:, 0])

    def _normalized(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        return functional.layer_norm(x, self.norm.shape, self.norm)

    def _step_bias(self, state: State, seen: int) -> Float[Tensor, "batch heads seen"]:
        """The bias of the next position to the keys: minus infinity for those ahead and those hidden."""
        keys = torch.arange(seen, device=state.position.device)
        index = (state.position - keys + 1).clamp_(min=0)
        row = state.bias_by_distance.index_select(1, index)
        by_time = bias_by_time(self.time_bias, state.moments, state.position, seen)
        if by_time is not None:
            row = row + by_time.squeeze(1)
        return row.unsqueeze(0).masked_fill(~state.key_mask[:, :seen].unsqueeze(1), float("-inf"))

    def _prefix_bias(self, key_mask: Bool[Tensor, "batch time"], moments: Moments) -> Float[Tensor, "batch rows time"]:
        """The bias among the first positions, a row for each of them and each head (heads vary fastest)."""
        time = key_mask.shape[1]
        distances = torch.arange(-max(self.prefix - 1, 0), time, device=key_mask.device)
        bias = bias_between_all(self.position_bias(distances).t(), self.time_bias, moments, time)
        return dense_bias(bias, key_mask, self.prefix).transpose(1, 2).flatten(1, 2)


class _IncrementalBlock:
    """One block: attention over what is remembered, then the feed-forward."""

    def __init__(self, block: Block, precision: torch.dtype) -> None:
        self.attention = _IncrementalAttention(block.attention, precision)
        self.feedforward = _IncrementalFeedForward(block.feedforward, precision)

    def __call__(
        self,
        x: Float[Tensor, "batch time dim"],
        bias: Float[Tensor, "batch rows seen"],
        layer: LayerState,
        positions: Int[Tensor, "time"],
        seen: int,
    ) -> Float[Tensor, "batch time dim"]:
        x = x + self.attention(x, bias, layer, positions, seen)
        return x + self.feedforward(x, layer)


class _IncrementalAttention:
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
        bias: Float[Tensor, "batch rows seen"],
        layer: LayerState,
        positions: Int[Tensor, "time"],
        seen: int,
    ) -> Float[Tensor, "batch time dim"]:
        by_head = self.to_all(x).unflatten(-1, (self.heads + 2, HEAD_DIM))
        directions = by_head[:, :, :-1].float()
        length = torch.linalg.vector_norm(directions, dim=-1, keepdim=True).clamp_(min=_SMALLEST_NORM)
        directions = directions.div(length).mul_(self.scale)
        layer.keys.index_copy_(1, positions, directions[:, :, -1])
        layer.values.index_copy_(1, positions, by_head[:, :, -1].float())
        query = directions[:, :, :-1].flatten(1, 2)
        logits = torch.baddbmm(bias, query, layer.keys[:, :seen].transpose(1, 2))
        attended = torch.bmm(logits.softmax(dim=-1), layer.values[:, :seen])
        return self.to_output(attended.view(x.shape[0], x.shape[1], -1).to(x.dtype))


class _IncrementalFeedForward:
    """Norm, widen, (convolve,) GEGLU, norm, narrow; the convolution's last inputs lie in the state."""

    def __init__(self, feedforward: FeedForward, precision: torch.dtype) -> None:
        self.norm = feedforward.norm.gamma.detach().to(precision)
        self.to_hidden = PackedLinear(feedforward.to_hidden.weight.to(precision))
        self.taps = None
        if feedforward.convolution is not None:
            self.taps = feedforward.convolution.weight.detach().squeeze(1).t().to(precision).contiguous()
        self.hidden_norm = feedforward.hidden_norm.gamma.detach().to(precision)
        self.to_output = PackedLinear(feedforward.to_output.weight.to(precision))

    def __call__(self, x: Float[Tensor, "batch time dim"], layer: LayerState) -> Float[Tensor, "batch time dim"]:
        hidden = self.to_hidden(functional.layer_norm(x, self.norm.shape, self.norm))
        if self.taps is not None:
            hidden = self._convolved(hidden, layer, self.taps)
        value, gate = hidden.chunk(2, dim=-1)
        gated = functional.gelu(gate).mul_(value)
        return self.to_output(functional.layer_norm(gated, self.hidden_norm.shape, self.hidden_norm))

    def _convolved(
        self,
        hidden: Float[Tensor, "batch time channels"],
        layer: LayerState,
        taps: Float[Tensor, "width channels"],
    ) -> Float[Tensor, "batch time channels"]:
        time, recent = hidden.shape[1], CONVOLUTION_WIDTH - 1
        extended = torch.cat((layer.recent, hidden), dim=1)
        layer.recent.copy_(extended[:, -recent:])
        convolved = extended[:, :time] * taps[0]
        for offset in range(1, CONVOLUTION_WIDTH):
            convolved.addcmul_(extended[:, offset : offset + time], taps[offset])
        return convolved
