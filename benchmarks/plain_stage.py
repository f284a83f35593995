"""A stage's training loss without optimizations: the baseline of benchmarks/train.py.

Float32 throughout; every head's scores over all pairs of positions; the convolution over time with channels first. It
reads the weights of a `Stage` of either token layout and gives its loss.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from open_musiclm.models.attention import LOGIT_SCALE
from open_musiclm.models.stages import Stage
from open_musiclm.models.token_layout import Ids
from open_musiclm.models.transformer import HEAD_DIM, Attention, FeedForward, Transformer

FORGOTTEN = 0.15


def plain_loss(stage: Stage, ids: Sequence[Ids]) -> Float[Tensor, ""]:
    """The loss of a stage whose non-causal prefix is empty; in training mode with forgetful masking and dropout."""
    x, mask, _ = stage.layout.embed(ids)
    if stage.training:
        forgotten = torch.rand(mask.shape, device=mask.device) < FORGOTTEN
        forgotten[:, 0] = False
        mask = mask & ~forgotten
    hidden = transformer(stage.layout.transformer, x, mask)
    logits, labels = stage.layout.predictions(hidden, ids, [False] * len(ids))
    return functional.cross_entropy(logits[-1].flatten(0, 1), labels[-1].flatten())


def transformer(
    module: Transformer, x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time dim"]:
    """All blocks, each with the bias of every pair of positions."""
    time = x.shape[1]
    positions = torch.arange(time, device=x.device)
    bias = module.position_bias(positions).t()[:, (positions.unsqueeze(1) - positions).clamp(min=0)]
    seen = (positions.unsqueeze(1) >= positions) & mask[:, None, None]
    for block in module.blocks:
        x = x + attention(block.attention, x, bias, seen)
        x = x + feedforward(block.feedforward, x)
    return module.norm(x)


def attention(
    module: Attention,
    x: Float[Tensor, "batch time dim"],
    bias: Float[Tensor, "heads time keys"],
    seen: Bool[Tensor, "batch 1 time keys"],
) -> Float[Tensor, "batch time dim"]:
    """Scores, bias, mask, softmax, one after the other."""
    query = module.to_query(module.norm(x)).unflatten(-1, (module.heads, HEAD_DIM)).transpose(1, 2)
    key, value = module.to_key_value(x).chunk(2, dim=-1)
    query = functional.normalize(query, dim=-1) * module.query_scale
    key = functional.normalize(key, dim=-1) * module.key_scale
    scores = torch.einsum("bhid,bjd->bhij", query, key) * LOGIT_SCALE + bias
    probabilities = scores.masked_fill(~seen, -torch.finfo(scores.dtype).max).softmax(dim=-1)
    probabilities = functional.dropout(probabilities, module.dropout, module.training)
    attended = torch.einsum("bhij,bjd->bhid", probabilities, value)
    return module.to_output(attended.transpose(1, 2).flatten(2))


def feedforward(module: FeedForward, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
    """Widen, convolve, GEGLU, norm, dropout, narrow."""
    hidden = module.to_hidden(module.norm(x))
    if module.convolution is not None:
        weight: nn.Parameter = module.convolution.weight
        padded = functional.pad(hidden.transpose(1, 2), (weight.shape[2] - 1, 0))
        hidden = functional.conv1d(padded, weight, groups=weight.shape[0]).transpose(1, 2)
    value, gate = hidden.chunk(2, dim=-1)
    hidden = module.hidden_norm(value * functional.gelu(gate))
    return module.to_output(functional.dropout(hidden, module.dropout.probability, module.training))
