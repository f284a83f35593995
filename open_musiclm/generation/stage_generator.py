"""One stage generating one window of tokens: prefill what is given, then one decode step per token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.generation.cuda_graphs import GraphCache
from open_musiclm.generation.decoder import CachedTransformer, KVCache
from open_musiclm.generation.linear import RowProduct
from open_musiclm.generation.sampling import Sampling, guided, gumbel_noise, sample
from open_musiclm.models.stages import Ids, Stage
from open_musiclm.models.token_sequences import PADDING, append_end, conditioning_mask, flatten_ids, position_times

# Captured steps have room for a multiple of this many positions, so that windows of similar length share one.
_CAPTURED_POSITIONS = 512


@dataclass
class DecodeState:
    """The memory that decode steps of one window read and write.

    `attended` is the number of positions that a step attends to. With guidance every request has two rows, the second
    without its condition. `token` is the number of the next token in the predicted sequence.
    """

    cache: KVCache
    hidden: Float[Tensor, "rows dim"]
    token: Int[Tensor, "1"]
    noise: Float[Tensor, "quantizers batch classes"]
    ids: Int[Tensor, "batch quantizers"]
    attended: int


class StageGenerator:
    """A stage's weights in `precision`, arranged for generation; the position bias stays in float32.

    Keeps no reference to the stage: later changes of its weights have no effect, and its memory can be freed.
    """

    def __init__(self, stage: Stage, precision: torch.dtype = torch.float32) -> None:
        decoder = stage.decoder
        self.name = stage.name
        self.sequences, self.predicted = stage.sequences, stage.predicted
        self.condition_dropout = stage.condition_dropout
        self.transformer = CachedTransformer(decoder.transformer, precision)
        self.embeddings = [decoder.embedding(index) for index in range(len(self.sequences))]
        self.to_logits = [RowProduct(weight.to(precision)) for weight in decoder.logit_weights[-1]]
        self.precision = precision
        # On a GPU the decode steps of a frame are one graph; elsewhere they run one by one.
        self.graphs: GraphCache[DecodeState] | None = None
        if self.transformer.norm.device.type == "cuda":
            self.graphs = GraphCache()

    def check(self, sampling: Sampling) -> None:
        """Raises UserError where the stage cannot sample like this."""
        if sampling.cfg_scale != 1 and not self.condition_dropout:
            raise UserError(
                f"cfg_scale {sampling.cfg_scale}: the {self.name} stage was trained without condition_dropout, which "
                "guidance needs; leave it out, or train with that key in the model config"
            )

    @torch.inference_mode()
    def generate(
        self,
        conditioning: Sequence[Ids],
        context: Int[Tensor, "batch context quantizers"],
        frames: int,
        sampling: Sampling,
        rngs: Sequence[torch.Generator],
        advanced: Callable[[int], None],
    ) -> Int[Tensor, "batch frames quantizers"]:
        """The `frames` frames that follow `context`, in a window that starts where `context` starts.

        As in training, the end ids of the conditioning are present and masked. Request b uses `rngs[b]`, whatever the
        batch. Calls `advanced(1)` after every frame.
        """
        quantizers = self.predicted.quantizers
        fixed = [append_end(flatten_ids(t), kind) for t, kind in zip(conditioning, self.sequences[:-1], strict=True)]
        tokens = flatten_ids(context)
        if sampling.cfg_scale != 1:
            fixed, tokens = _with_unconditional(fixed, tokens)
        noise = gumbel_noise(rngs, frames * quantizers, self.predicted.codebook_size + 1, context.device)
        length = sum(ids.shape[1] + 1 for ids in (*fixed, tokens)) + frames * quantizers
        state, decode_frame = self._prepare(context.shape[0], tokens.shape[0], length, sampling, context.device)
        made: list[Tensor] = []
        self._prefill(state, fixed, tokens)
        for frame, frame_noise in enumerate(noise.split(quantizers), start=1):
            state.noise.copy_(frame_noise)
            if self.graphs is None:
                state.attended = length - (frames - frame) * quantizers
            if self._in_prefix(fixed, tokens):
                tokens = self._decode_in_prefix(state, fixed, tokens, sampling)
            else:
                decode_frame()
            made.append(state.ids.clone())
            advanced(1)
        return torch.stack(made, dim=1) if made else context[:, :0]

    def _prepare(
        self, batch: int, rows: int, length: int, sampling: Sampling, device: torch.device
    ) -> tuple[DecodeState, Callable[[], None]]:
        """Memory for a window of `length` positions, and what makes its next frame."""
        if self.graphs is None:
            state = self._empty_state(batch, rows, length, device)
            return state, lambda: self._decode_frame(state, sampling)
        capacity = -(-length // _CAPTURED_POSITIONS) * _CAPTURED_POSITIONS
        return self.graphs.get(
            (rows, capacity, sampling),
            lambda: self._empty_state(batch, rows, capacity, device),
            lambda state: self._decode_frame(state, sampling),
        )

    def _empty_state(self, batch: int, rows: int, capacity: int, device: torch.device) -> DecodeState:
        quantizers, classes = self.predicted.quantizers, self.predicted.codebook_size + 1
        return DecodeState(
            self.transformer.empty_cache(rows, capacity),
            hidden=torch.zeros(rows, self.transformer.norm.shape[0], dtype=self.precision, device=device),
            token=torch.zeros(1, dtype=torch.long, device=device),
            noise=torch.zeros(quantizers, batch, classes, device=device),
            ids=torch.zeros(batch, quantizers, dtype=torch.long, device=device),
            attended=capacity,
        )

    def _prefill(self, state: DecodeState, fixed: list[Tensor], tokens: Int[Tensor, "rows context"]) -> None:
        """Runs all that is given through the transformer."""
        ids = [*fixed, tokens]
        embedded = [embedding.whole(sequence) for embedding, sequence in zip(self.embeddings, ids, strict=True)]
        mask: Bool[Tensor, "rows time"] = conditioning_mask(self.sequences, ids)
        x = torch.cat(embedded, dim=1).to(self.precision)
        others = [sequence.shape[1] for sequence in fixed]
        room = state.cache.capacity - sum(others) - len(ids)
        times = position_times(self.sequences, [*others, room], x.device)
        state.hidden.copy_(self.transformer.prefill(x, mask, times, state.cache))
        state.token.fill_(tokens.shape[1])

    def _decode_frame(self, state: DecodeState, sampling: Sampling) -> None:
        """Samples the ids of the next frame, one quantizer after the other, with a decode step each."""
        for quantizer in range(self.predicted.quantizers):
            ids = self._sample(state, quantizer, sampling)
            rows = ids.repeat(state.hidden.shape[0] // ids.shape[0]).unsqueeze(1)
            embedded = self.embeddings[-1].tokens(rows, state.token).squeeze(1).to(self.precision)
            state.hidden.copy_(self.transformer.decode_step(embedded, state.cache, state.attended))
            state.token.add_(1)

    def _decode_in_prefix(
        self, state: DecodeState, fixed: list[Tensor], tokens: Int[Tensor, "rows context"], sampling: Sampling
    ) -> Int[Tensor, "rows context_and_new"]:
        """The same where earlier positions attend to the new one, in the non-causal prefix: prefills for each token."""
        for quantizer in range(self.predicted.quantizers):
            ids = self._sample(state, quantizer, sampling)
            rows = ids.repeat(tokens.shape[0] // ids.shape[0])
            tokens = torch.cat((tokens, rows.unsqueeze(1)), dim=1)
            self._prefill(state, fixed, tokens)
        return tokens

    def _in_prefix(self, fixed: list[Tensor], tokens: Int[Tensor, "rows context"]) -> bool:
        return sum(ids.shape[1] + 1 for ids in (*fixed, tokens)) < self.transformer.prefix

    def _sample(self, state: DecodeState, quantizer: int, sampling: Sampling) -> Int[Tensor, "batch"]:
        logits = guided(self.to_logits[quantizer](state.hidden).float(), sampling)
        ids = sample(logits, state.noise[quantizer], sampling)
        state.ids[:, quantizer] = ids
        return ids


def _with_unconditional(fixed: list[Tensor], tokens: Tensor) -> tuple[list[Tensor], Tensor]:
    """Every row once more with its conditioning masked, as condition dropout masks it in training."""
    doubled = [torch.cat((ids, torch.full_like(ids, PADDING))) for ids in fixed]
    return doubled, torch.cat((tokens, tokens))
