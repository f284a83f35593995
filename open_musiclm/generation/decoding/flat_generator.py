"""Generation in the flat layout: a decode step for each token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from open_musiclm.generation.decoding.packed_linear import PackedLinear
from open_musiclm.generation.decoding.sampling import Sampling, guided, gumbel_noise, sample
from open_musiclm.generation.decoding.stage_generator import DecodeState, StageGenerator, with_guidance_rows
from open_musiclm.models.flat_layout import (
    FlatLayout,
    append_end,
    conditioning_mask,
    flatten_ids,
    position_times,
)
from open_musiclm.models.position_bias import PositionTimes
from open_musiclm.models.stages import Stage
from open_musiclm.models.token_layout import Ids


@dataclass
class FlatState(DecodeState):
    """`token` is the number of the next token in the predicted sequence. The noise is [quantizers, batch, classes]."""

    token: Int[Tensor, "1"]


class FlatGenerator(StageGenerator[FlatState]):
    """Each frame is as many decode steps as it has quantizers."""

    def __init__(self, stage: Stage, precision: torch.dtype = torch.float32) -> None:
        super().__init__(stage, precision)
        layout = stage.layout
        assert isinstance(layout, FlatLayout)
        self.embeddings = [layout.sequence_embedding(index) for index in range(len(self.sequences))]
        self.to_logits = [PackedLinear(weight.to(precision)) for weight in layout.logit_weights[-1]]

    @torch.inference_mode()
    def generate(
        self,
        conditioning: Sequence[Ids],
        context: Int[Tensor, "batch context quantizers"],
        frames: int,
        sampling: Sampling,
        rngs: Sequence[torch.Generator],
        on_frame: Callable[[], None],
        negative: Ids | None = None,
    ) -> Int[Tensor, "batch frames quantizers"]:
        """See `StageGenerator.generate`. As in training, the end ids of the conditioning are present and masked."""
        if frames == 0:  # what comes before a change in the first moment of a story
            return context[:, :0]
        quantizers = self.predicted.quantizers
        fixed = [append_end(flatten_ids(t), kind) for t, kind in zip(conditioning, self.sequences[:-1], strict=True)]
        tokens = flatten_ids(context)
        if sampling.cfg_scale != 1:
            away = None if negative is None else append_end(flatten_ids(negative), self.sequences[0])
            fixed, tokens = with_guidance_rows(fixed, away), torch.cat((tokens, tokens))
        noise = gumbel_noise(rngs, frames * quantizers, self.predicted.codebook_size + 1, context.device)
        length = sum(ids.shape[1] + 1 for ids in (*fixed, tokens)) + frames * quantizers
        state, decode_next = self.prepare(context.shape[0], tokens.shape[0], length, sampling)
        made: list[Tensor] = []
        self._prefill(state, fixed, tokens)
        for frame, frame_noise in enumerate(noise.split(quantizers), start=1):
            state.noise.copy_(frame_noise)
            if self.graphs is None:
                state.attended = length - (frames - frame) * quantizers
            if self._in_prefix(fixed, tokens):
                tokens = self._decode_in_prefix(state, fixed, tokens, sampling)
            else:
                decode_next()
            made.append(state.ids.clone())
            on_frame()
        return torch.stack(made, dim=1)

    def empty_state(self, batch: int, rows: int, capacity: int) -> FlatState:
        """See `StageGenerator.empty_state`."""
        device = self.transformer.norm.device
        quantizers, classes = self.predicted.quantizers, self.predicted.codebook_size + 1
        return FlatState(
            self.transformer.empty_cache(rows, capacity),
            hidden=torch.zeros(rows, self.transformer.norm.shape[0], dtype=self.precision, device=device),
            token=torch.zeros(1, dtype=torch.long, device=device),
            noise=torch.zeros(quantizers, batch, classes, device=device),
            ids=torch.zeros(batch, quantizers, dtype=torch.long, device=device),
            attended=capacity,
        )

    @torch.inference_mode()
    def log_likelihood(
        self, conditioning: Sequence[Ids], tokens: Int[Tensor, "batch frames quantizers"], known: int
    ) -> Float[Tensor, "batch"]:
        """The mean log probability, in nats, of the tokens of a window from frame `known` on, each given all before it.

        As in sampling, the end id is left out; the temperature is 1, and there is no guidance.
        """
        fixed = [append_end(flatten_ids(t), kind) for t, kind in zip(conditioning, self.sequences[:-1], strict=True)]
        ids, quantizers = flatten_ids(tokens), self.predicted.quantizers
        length = sum(sequence.shape[1] + 1 for sequence in (*fixed, ids))
        state = self.empty_state(len(ids), len(ids), length)
        hidden = self.transformer.outputs(*self._embedded(state, fixed, ids), state.cache)
        predicting = hidden[:, -ids.shape[1] - 1 : -1].unflatten(1, (-1, quantizers))[:, known:]
        by_quantizer = [to_logits(predicting[:, :, place]) for place, to_logits in enumerate(self.to_logits)]
        log_probabilities = torch.stack(by_quantizer, dim=2).float()[..., :-1].log_softmax(dim=-1)
        return log_probabilities.gather(-1, tokens[:, known:].unsqueeze(-1)).flatten(1).mean(dim=1)

    def _prefill(self, state: FlatState, fixed: list[Tensor], tokens: Int[Tensor, "rows context"]) -> None:
        """Runs the conditioning and the context through the transformer."""
        state.hidden.copy_(self.transformer.prefill(*self._embedded(state, fixed, tokens), state.cache))
        state.token.fill_(tokens.shape[1])

    def _embedded(
        self, state: FlatState, fixed: list[Tensor], tokens: Int[Tensor, "rows context"]
    ) -> tuple[Float[Tensor, "rows time dim"], Bool[Tensor, "rows time"], PositionTimes]:
        """Embeddings and key mask of the conditioning and the context, and the times of the whole cache."""
        ids = [*fixed, tokens]
        embedded = [embedding.all(sequence) for embedding, sequence in zip(self.embeddings, ids, strict=True)]
        mask = conditioning_mask(self.sequences, ids)
        x = torch.cat(embedded, dim=1).to(self.precision)
        others = [sequence.shape[1] for sequence in fixed]
        room = state.cache.capacity - sum(others) - len(ids)
        return x, mask, position_times(self.sequences, [*others, room], x.device)

    def decode_next(self, state: FlatState, sampling: Sampling) -> None:
        """Samples the ids of the next frame, one quantizer after the other, with a decode step each."""
        for quantizer in range(self.predicted.quantizers):
            ids = self._sample(state, quantizer, sampling)
            rows = ids.repeat(state.hidden.shape[0] // ids.shape[0]).unsqueeze(1)
            embedded = self.embeddings[-1].tokens(rows, state.token).squeeze(1).to(self.precision)
            state.hidden.copy_(self.transformer.decode_step(embedded, state.cache, state.attended))
            state.token.add_(1)

    def _decode_in_prefix(
        self, state: FlatState, fixed: list[Tensor], tokens: Int[Tensor, "rows context"], sampling: Sampling
    ) -> Int[Tensor, "rows context_and_new"]:
        """The same in the non-causal prefix: earlier positions attend to the new one, so each token takes a prefill."""
        for quantizer in range(self.predicted.quantizers):
            ids = self._sample(state, quantizer, sampling)
            rows = ids.repeat(tokens.shape[0] // ids.shape[0])
            tokens = torch.cat((tokens, rows.unsqueeze(1)), dim=1)
            self._prefill(state, fixed, tokens)
        return tokens

    def _in_prefix(self, fixed: list[Tensor], tokens: Int[Tensor, "rows context"]) -> bool:
        return sum(ids.shape[1] + 1 for ids in (*fixed, tokens)) < self.transformer.prefix

    def _sample(self, state: FlatState, quantizer: int, sampling: Sampling) -> Int[Tensor, "batch"]:
        logits = guided(self.to_logits[quantizer](state.hidden).float(), sampling)
        ids = sample(logits[:, :-1], state.noise[quantizer, :, :-1], sampling)  # never the end id
        state.ids[:, quantizer] = ids
        return ids
