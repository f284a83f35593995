"""The flat layout: one position per token, as in released checkpoints.

Tokens [batch, time, quantizers] are flattened time-major: t0q0 t0q1 ... t1q0 ...; each sequence is preceded by a
learned start vector, and every conditioning sequence is followed by its end id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from open_musiclm.config import TransformerConfig
from open_musiclm.models.position_bias import PositionTimes
from open_musiclm.models.token_layout import PADDING, EmbeddedWindow, Ids, TokenLayout
from open_musiclm.models.transformer import Transformer
from open_musiclm.tokens import TokenStream


@dataclass(frozen=True)
class SequenceEmbedding:
    """The start vector and the tables of one sequence; `positions` is None without absolute positions."""

    sequence: TokenStream
    start: Float[Tensor, "dim"]
    table: nn.Module
    positions: nn.Module | None

    def all(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch positions dim"]:
        """The start vector, then the tokens from the first one on."""
        numbers = torch.arange(ids.shape[1], device=ids.device)
        return torch.cat((self.start.expand(ids.shape[0], 1, -1), self.tokens(ids, numbers)), dim=1)

    def tokens(
        self, ids: Int[Tensor, "batch tokens"], numbers: Int[Tensor, "tokens"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Tokens number `numbers` of the sequence (from 0); end ids and padding are looked up as id 0."""
        looked_up = torch.where(is_token(ids, self.sequence), ids, 0)
        embedded = self.table(looked_up + numbers % self.sequence.quantizers * self.sequence.codebook_size)
        return embedded if self.positions is None else embedded + self.positions(numbers)


class FlatLayout(TokenLayout):
    """A table of tokens, a start vector and a head for each sequence; every token is predicted from those before it."""

    def __init__(self, sequences: Sequence[TokenStream], config: TransformerConfig) -> None:
        super().__init__()
        self.sequences = tuple(sequences)
        self.grad_shrink_alpha = config.grad_shrink_alpha
        dim = config.dim
        self.start_tokens = nn.ParameterList(nn.Parameter(torch.randn(dim)) for _ in sequences)
        self.embeddings = nn.ModuleList(nn.Embedding((s.codebook_size + 1) * s.quantizers, dim) for s in sequences)
        self.position_embeddings = nn.ModuleList(
            nn.Embedding(config.max_absolute_position_embeddings, dim)
            for _ in sequences
            if config.use_absolute_position_embeddings
        )
        self.logit_weights = nn.ParameterList(
            nn.Parameter(torch.randn(s.quantizers, s.codebook_size + 1, dim) * dim**-0.5) for s in sequences
        )
        self.transformer = Transformer(config)

    def embed(self, ids: Sequence[Ids]) -> EmbeddedWindow:
        """See `TokenLayout.embed`. The end id of the last sequence is only predicted, never given."""
        return self.embed_flat([*self._with_ends(ids)[:-1], flatten_ids(ids[-1])])

    def embed_flat(self, ids: Sequence[Int[Tensor, "batch _"]]) -> EmbeddedWindow:
        """The same of flattened tokens, end ids included."""
        embedded = torch.cat([self.sequence_embedding(i).all(tokens) for i, tokens in enumerate(ids)], dim=1)
        times = position_times(self.sequences, [tokens.shape[1] for tokens in ids], embedded.device)
        return EmbeddedWindow(self._shrink_gradient(embedded), conditioning_mask(self.sequences, ids), times)

    def predictions(
        self, hidden: Float[Tensor, "batch positions dim"], ids: Sequence[Ids], wanted: Sequence[bool]
    ) -> tuple[list[Float[Tensor, "batch _ _"] | None], list[Int[Tensor, "batch _"]]]:
        """See `TokenLayout.predictions`. Every sequence ends with its end id, the last class."""
        labels = self._with_ends(ids)
        outputs = self.predicting(hidden, [tokens.shape[1] for tokens in (*labels[:-1], flatten_ids(ids[-1]))])
        last = len(ids) - 1
        logits = [self.logits(i, output) if wanted[i] or i == last else None for i, output in enumerate(outputs)]
        return logits, labels

    def predicting(
        self, hidden: Float[Tensor, "batch positions dim"], lengths: Sequence[int]
    ) -> list[Float[Tensor, "batch _ dim"]]:
        """The outputs that predict tokens, of each sequence with so many tokens.

        A conditioning sequence of n tokens has n of them (at its start vector and all tokens but the last), the last
        sequence n + 1.
        """
        outputs = list(hidden.split([length + 1 for length in lengths], dim=1))
        return [output[:, :-1] for output in outputs[:-1]] + outputs[-1:]

    def sequence_embedding(self, index: int) -> "SequenceEmbedding":
        """What embeds sequence `index`."""
        positions = self.position_embeddings[index] if self.position_embeddings else None
        return SequenceEmbedding(self.sequences[index], self.start_tokens[index], self.embeddings[index], positions)

    def logits(
        self, index: int, hidden: Float[Tensor, "batch positions dim"]
    ) -> Float[Tensor, "batch positions classes"]:
        """Scores of every id of sequence `index`, the end id last, for its predictions from the first one on."""
        quantizers = self.sequences[index].quantizers
        positions = hidden.shape[1]
        missing = -positions % quantizers
        by_time = nn.functional.pad(hidden, (0, 0, 0, missing)).unflatten(1, (-1, quantizers))
        scores = torch.einsum("btqd,qcd->btqc", by_time, self.logit_weights[index])
        return scores.flatten(1, 2)[:, :positions]

    def _with_ends(self, ids: Sequence[Ids]) -> list[Int[Tensor, "batch _"]]:
        return [append_end(flatten_ids(tokens), kind) for tokens, kind in zip(ids, self.sequences, strict=True)]

    def _shrink_gradient(self, x: Float[Tensor, "batch positions dim"]) -> Float[Tensor, "batch positions dim"]:
        alpha = self.grad_shrink_alpha
        return x if alpha == 1 else x * alpha + x.detach() * (1 - alpha)


def position_times(sequences: Sequence[TokenStream], lengths: Sequence[int], device: torch.device) -> PositionTimes:
    """The times of the positions of sequences with so many tokens, each in the middle of its frame."""
    predicted, predicts, own, rates = [], [], [], []
    for sequence, length in zip(sequences, lengths, strict=True):
        last, hz = sequence is sequences[-1], sequence.frame_hz
        frames = torch.arange(length + 1, device=device).div(sequence.quantizers, rounding_mode="floor")
        seconds = (frames + 0.5) / (hz or 1)
        predicted.append(seconds)
        predicts.append(torch.full_like(seconds, last))
        own.append(nn.functional.pad(seconds[:-1], (1, 0)))
        rates.append(nn.functional.pad(torch.full_like(seconds[:-1], 0 if last else hz or 0), (1, 0)))
    return PositionTimes(torch.cat(predicted), torch.cat(predicts), torch.cat(own), torch.cat(rates))


def flatten_ids(ids: Int[Tensor, "batch time quantizers"]) -> Int[Tensor, "batch tokens"]:
    """Time-major: t0q0 t0q1 ... t1q0 ..."""
    return ids.flatten(1)


def append_end(ids: Int[Tensor, "batch tokens"], sequence: TokenStream) -> Int[Tensor, "batch tokens_and_end"]:
    """The tokens followed by the end id."""
    return nn.functional.pad(ids, (0, 1), value=sequence.end_id)


def is_token(ids: Int[Tensor, "*shape"], sequence: TokenStream) -> Bool[Tensor, "*shape"]:
    """Whether each id is a token: neither an end id nor padding."""
    return (ids != sequence.end_id) & (ids != PADDING)


def conditioning_mask(
    sequences: Sequence[TokenStream], ids: Sequence[Int[Tensor, "batch _"]]
) -> Bool[Tensor, "batch positions"]:
    """Which positions are seen as keys: start vectors and tokens, but no end id or padding of the conditioning."""
    conditioning = [is_token(tokens, sequence) for tokens, sequence in zip(ids[:-1], sequences[:-1], strict=True)]
    seen = [*conditioning, torch.ones_like(ids[-1], dtype=torch.bool)]
    return torch.cat([nn.functional.pad(tokens, (1, 0), value=True) for tokens in seen], dim=1)
