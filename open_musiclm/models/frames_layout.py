"""The frames layout: one position per acoustic frame.

Tokens follow the delay pattern of MusicGen (Copet et al. 2023): position p predicts, for every quantizer q, the token
of frame p - q. Its input is the sum of the embeddings of what position p - 1 predicts, and of the conditioning of frame
p (SoundStorm, Borsos et al. 2023) after a small network that looks ahead. So T frames of Q quantizers take
T + Q - 1 positions. CLAP tokens are a prefix with positions of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from open_musiclm.config import AcousticConfig
from open_musiclm.errors import UserError
from open_musiclm.models.position_bias import PositionTimes
from open_musiclm.models.token_layout import PADDING, EmbeddedWindow, Ids, TokenLayout
from open_musiclm.models.transformer import LayerNorm, Transformer
from open_musiclm.tokens import TokenStream


class FramesLayout(TokenLayout):
    """CLAP prefix, then one position per frame; one head per quantizer. There are no end ids."""

    def __init__(self, sequences: Sequence[TokenStream], config: AcousticConfig) -> None:
        super().__init__()
        self.sequences = tuple(sequences)
        clap, conditioning, predicted = sequences
        dim, quantizers, classes = config.dim, predicted.quantizers, predicted.codebook_size
        self.grad_shrink_alpha = config.grad_shrink_alpha
        self.prefix = PrefixEmbedding(clap, dim)
        self.frames = FrameEmbedding(predicted, dim)
        self.conditioning = AlignedConditioning(conditioning, predicted, config)
        self.clap_per_frame = _zero_linear(dim) if config.clap_per_frame else None
        self.logit_weights = nn.Parameter(torch.randn(quantizers, classes, dim) * dim**-0.5)
        self.transformer = Transformer(config)

    def embed(self, ids: Sequence[Ids]) -> EmbeddedWindow:
        """See `TokenLayout.embed`."""
        clap, conditioning, tokens = ids
        positions = tokens.shape[1] + tokens.shape[2] - 1
        frames = self.frames(self.frames.previous(tokens, positions))
        frames = frames + self.frame_conditioning(clap, conditioning, positions)
        x = torch.cat((self.prefix(clap), frames), dim=1)
        shown = functional.pad(self.prefix.shown(clap), (0, positions), value=True)
        alpha = self.grad_shrink_alpha
        shrunk = x if alpha == 1 else x * alpha + x.detach() * (1 - alpha)
        return EmbeddedWindow(shrunk, shown, no_times(x.shape[1], x.device))

    @property
    def frame_conditioning(self) -> "FrameConditioning":
        """What is added to each position, from the conditioning alone."""
        return FrameConditioning(self.prefix, self.conditioning, self.clap_per_frame)

    def predictions(
        self, hidden: Float[Tensor, "batch positions dim"], ids: Sequence[Ids], wanted: Sequence[bool]
    ) -> tuple[list[Float[Tensor, "batch _ _"] | None], list[Int[Tensor, "batch _"]]]:
        """See `TokenLayout.predictions`. The conditioning is not predicted."""
        if any(wanted[:-1]):
            raise UserError(
                "cross_entropy_loss_weights: with token_layout frames only the last sequence is predicted; set the "
                "others to 0"
            )
        frames = ids[-1].shape[1]
        # one product per quantizer, of the positions that predict it: the gradient of logits cut apart is costly
        scores = [
            functional.linear(hidden[:, start : start + frames], weights)
            for start, weights in enumerate(self.logit_weights, self.prefix.length)
        ]
        return [None, None, torch.stack(scores, dim=2).flatten(1, 2)], [sequence.flatten(1) for sequence in ids]


class PrefixEmbedding(nn.Module):
    """The positions before the first frame: a learned start vector and the CLAP tokens."""

    def __init__(self, stream: TokenStream, dim: int) -> None:
        super().__init__()
        self.length = 1 + stream.quantizers
        self.codebook_size = stream.codebook_size
        self.start = nn.Parameter(torch.randn(dim))
        self.table = nn.Embedding(stream.codebook_size * stream.quantizers, dim)

    def forward(self, ids: Int[Tensor, "batch 1 quantizers"]) -> Float[Tensor, "batch prefix dim"]:
        """A hidden token is looked up as id 0; `shown` masks it."""
        offsets = torch.arange(ids.shape[2], device=ids.device) * self.codebook_size
        tokens = self.table(ids.flatten(1).clamp(min=0) + offsets)
        return torch.cat((self.start.to(tokens.dtype).expand(len(tokens), 1, -1), tokens), dim=1)

    def shown(self, ids: Int[Tensor, "batch 1 quantizers"]) -> Bool[Tensor, "batch prefix"]:
        """Which positions of the prefix are attended to as keys."""
        return functional.pad(ids.flatten(1) != PADDING, (1, 0), value=True)


class FrameEmbedding(nn.Module):
    """The tokens of a position of the delay pattern to the sum of their embeddings.

    Each quantizer's table has one row more than its codebook: `empty_id`, where the pattern has no token.
    """

    def __init__(self, stream: TokenStream, dim: int) -> None:
        super().__init__()
        self.empty_id = stream.codebook_size
        self.table = nn.Embedding((stream.codebook_size + 1) * stream.quantizers, dim)
        nn.init.normal_(self.table.weight, std=stream.quantizers**-0.5)  # of their sum 1

    def forward(self, ids: Int[Tensor, "batch positions quantizers"]) -> Float[Tensor, "batch positions dim"]:
        """`ids` in the delay pattern."""
        offsets = torch.arange(ids.shape[2], device=ids.device) * (self.empty_id + 1)
        return self.table(ids + offsets).sum(dim=2)

    def previous(
        self, tokens: Int[Tensor, "batch frames quantizers"], positions: int
    ) -> Int[Tensor, "batch positions quantizers"]:
        """What the position before each of the first `positions` predicts; before the first one nothing."""
        pattern = delayed(tokens, self.empty_id)
        return functional.pad(pattern, (0, 0, 1, 0), value=self.empty_id)[:, :positions]


class AlignedConditioning(nn.Module):
    """Conditioning tokens to one vector per acoustic frame: that of the conditioning frame at the same time.

    `conditioning_depth` residual convolution blocks of width `conditioning_kernel` see `lookahead_seconds` ahead.
    """

    def __init__(self, stream: TokenStream, predicted: TokenStream, config: AcousticConfig) -> None:
        super().__init__()
        assert stream.frame_hz is not None
        assert predicted.frame_hz is not None
        self.stream = stream
        self.frames_per_frame = stream.frame_hz / predicted.frame_hz
        self.lookahead_seconds = config.conditioning_depth * (config.conditioning_kernel // 2) / stream.frame_hz
        self.embedding = nn.Embedding((stream.codebook_size + 1) * stream.quantizers, config.dim)
        nn.init.normal_(self.embedding.weight, std=stream.quantizers**-0.5)
        self.blocks = nn.ModuleList(
            _ConvolutionBlock(config.dim, config.conditioning_kernel) for _ in range(config.conditioning_depth)
        )
        self.norm = LayerNorm(config.dim)

    def forward(
        self, ids: Int[Tensor, "batch frames quantizers"], positions: int
    ) -> Float[Tensor, "batch positions dim"]:
        """Vectors for acoustic frames 0 to `positions` - 1; beyond the conditioning, and where it is hidden, it is
        absent, which has a row of its own in the tables."""
        places = ((torch.arange(positions, device=ids.device) + 0.5) * self.frames_per_frame).long()
        missing = max(int((positions - 0.5) * self.frames_per_frame) + 1 - ids.shape[1], 0)
        padded = functional.pad(ids, (0, 0, 0, missing), value=PADDING)
        absent = self.stream.codebook_size
        offsets = torch.arange(ids.shape[2], device=ids.device) * (absent + 1)
        x = self.embedding(torch.where(padded == PADDING, absent, padded) + offsets).sum(dim=2)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, places]


@dataclass(frozen=True)
class FrameConditioning:
    """What is added to each position, from the conditioning alone.

    With `clap_per_frame` a projection of the CLAP tokens is part of it. From attention to the prefix alone a stage
    learns slowly: after a window's first frames the history already shows the instrument.
    """

    prefix: PrefixEmbedding
    aligned: AlignedConditioning
    clap_per_frame: nn.Linear | None

    def __call__(
        self, clap: Int[Tensor, "batch 1 _"], conditioning: Ids, positions: int
    ) -> Float[Tensor, "batch positions dim"]:
        """Of the first `positions` positions."""
        aligned = self.aligned(conditioning, positions)
        if self.clap_per_frame is None:
            return aligned
        tokens = self.prefix(clap)[:, 1:] * self.prefix.shown(clap)[:, 1:, None]
        return aligned + self.clap_per_frame(tokens.sum(dim=1, keepdim=True))


class _ConvolutionBlock(nn.Module):
    """x + a non-causal depthwise convolution, norm, two products with a GELU between (ConvNeXt, Liu et al. 2022)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = LayerNorm(dim)
        self.widen = nn.Linear(dim, dim)
        self.narrow = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch frames dim"]:
        mixed = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.narrow(functional.gelu(self.widen(self.norm(mixed))))


def _zero_linear(dim: int) -> nn.Linear:
    """Zero at first: a stage that was trained without it can be trained further with it."""
    linear = nn.Linear(dim, dim, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def delayed(ids: Int[Tensor, "batch frames quantizers"], empty: int) -> Int[Tensor, "batch positions quantizers"]:
    """The delay pattern: position p holds the token of frame p - q of quantizer q, or the empty id."""
    batch, frames, quantizers = ids.shape
    pattern = ids.new_full((batch, frames + quantizers - 1, quantizers), empty)
    for quantizer in range(quantizers):
        pattern[:, quantizer : quantizer + frames, quantizer] = ids[:, :, quantizer]
    return pattern


def undelayed(
    pattern: Shaped[Tensor, "batch positions quantizers *rest"], frames: int
) -> Shaped[Tensor, "batch frames quantizers *rest"]:
    """The reverse of `delayed`: the first `frames` frames of a delay pattern."""
    parts = [pattern[:, quantizer : quantizer + frames, quantizer] for quantizer in range(pattern.shape[2])]
    return torch.stack(parts, dim=2)


def no_times(positions: int, device: torch.device) -> PositionTimes:
    """The times of positions that have none: attention is not biased by time."""
    zeros = torch.zeros(positions, device=device)
    return PositionTimes(zeros, zeros, zeros, zeros)
