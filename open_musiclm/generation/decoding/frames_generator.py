"""Generation in the frames layout: a decode step for each frame, all its quantizers at once."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from open_musiclm.generation.decoding.packed_linear import PackedLinear
from open_musiclm.generation.decoding.sampling import Sampling, guided, gumbel_noise, sample
from open_musiclm.generation.decoding.stage_generator import DecodeState, StageGenerator, with_guidance_rows
from open_musiclm.models.frames_layout import FramesLayout, delayed, no_times, undelayed
from open_musiclm.models.stages import Stage
from open_musiclm.models.token_layout import Ids

_SAMPLED = -1  # in `fixed`: a token that is sampled


@dataclass
class FramesState(DecodeState):
    """`position` is the number of the last position run, from the first frame's on. The noise is [batch, quantizers,
    classes]. `fixed` are the tokens that are not sampled: of the context, and empty ones.
    """

    position: Int[Tensor, "1"]
    conditioning: Float[Tensor, "rows capacity dim"]
    fixed: Int[Tensor, "batch quantizers"]


class FramesGenerator(StageGenerator[FramesState]):
    """T frames of Q quantizers take T + Q - 1 decode steps."""

    def __init__(self, stage: Stage, precision: torch.dtype = torch.float32) -> None:
        super().__init__(stage, precision)
        layout = stage.layout
        assert isinstance(layout, FramesLayout)
        self.embed_prefix, self.embed_tokens = layout.prefix, layout.frames
        self.frame_conditioning = layout.frame_conditioning
        self.to_logits = PackedLinear(layout.logit_weights.flatten(0, 1).to(precision))

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
        """See `StageGenerator.generate`."""
        if frames == 0:
            return context[:, :0]
        batch, start, quantizers = context.shape
        steps = frames + quantizers - 1
        given, tokens = list(conditioning), context
        if sampling.cfg_scale != 1:
            given, tokens = with_guidance_rows(given, negative), torch.cat((context, context))
        length = self.embed_prefix.length + start + steps
        state, decode_next = self.prepare(batch, len(tokens), length, sampling)
        fixed = self._fixed(context, frames)
        noise = _DelayedNoise(rngs, frames, quantizers, self.predicted.codebook_size)
        self._prefill(state, given, tokens, start + steps)
        made: list[Tensor] = []
        for step in range(steps):
            state.fixed.copy_(fixed[:, step])
            state.noise.copy_(noise.next())
            if step == 0:
                self._sample(state, sampling)
            else:
                if self.graphs is None:
                    state.attended = self.embed_prefix.length + start + step + 1
                decode_next()
            made.append(state.ids.clone())
            if step >= quantizers - 1:
                on_frame()
        return undelayed(torch.stack(made, dim=1), frames)

    def empty_state(self, batch: int, rows: int, capacity: int) -> FramesState:
        """See `StageGenerator.empty_state`."""
        device, dim = self.transformer.norm.device, self.transformer.norm.shape[0]
        quantizers, classes = self.predicted.quantizers, self.predicted.codebook_size
        return FramesState(
            self.transformer.empty_cache(rows, capacity),
            hidden=torch.zeros(rows, dim, dtype=self.precision, device=device),
            position=torch.zeros(1, dtype=torch.long, device=device),
            conditioning=torch.zeros(rows, capacity, dim, dtype=self.precision, device=device),
            noise=torch.zeros(batch, quantizers, classes, device=device),
            fixed=torch.zeros(batch, quantizers, dtype=torch.long, device=device),
            ids=torch.zeros(batch, quantizers, dtype=torch.long, device=device),
            attended=capacity,
        )

    def decode_next(self, state: FramesState, sampling: Sampling) -> None:
        """Runs the next position, and samples what it predicts."""
        state.position.add_(1)
        rows = state.ids.repeat(state.hidden.shape[0] // state.ids.shape[0], 1)
        embedded = self.embed_tokens(rows.unsqueeze(1)).squeeze(1).to(self.precision)
        x = embedded + state.conditioning.index_select(1, state.position).squeeze(1)
        state.hidden.copy_(self.transformer.decode_step(x, state.cache, state.attended))
        self._sample(state, sampling)

    def _prefill(
        self, state: FramesState, given: list[Tensor], tokens: Int[Tensor, "rows context _"], positions: int
    ) -> None:
        """Runs the prefix and the positions up to the one that predicts the first new frame."""
        clap, conditioning = given
        start = tokens.shape[1]
        aligned = self.frame_conditioning(clap, conditioning, positions).to(self.precision)
        state.conditioning[:, :positions] = aligned
        embedded = self.embed_tokens(self.embed_tokens.previous(tokens, start + 1)).to(self.precision)
        x = torch.cat((self.embed_prefix(clap).to(self.precision), embedded + aligned[:, : start + 1]), dim=1)
        mask = functional.pad(self.embed_prefix.shown(clap), (0, start + 1), value=True)
        times = no_times(state.cache.capacity, x.device)
        state.hidden.copy_(self.transformer.prefill(x, mask, times, state.cache))
        state.position.fill_(start)

    def _sample(self, state: FramesState, sampling: Sampling) -> None:
        logits = guided(self.to_logits(state.hidden).float(), sampling)
        rows = logits.unflatten(1, (self.predicted.quantizers, -1)).flatten(0, 1)
        ids = sample(rows, state.noise.flatten(0, 1), sampling).view_as(state.ids)
        state.ids.copy_(torch.where(state.fixed == _SAMPLED, ids, state.fixed))

    def _fixed(
        self, context: Int[Tensor, "batch context quantizers"], frames: int
    ) -> Int[Tensor, "batch steps quantizers"]:
        """In the delay pattern, from the first new position on, the tokens that are not sampled."""
        batch, start, quantizers = context.shape
        new = context.new_full((batch, frames, quantizers), _SAMPLED)
        return delayed(torch.cat((context, new), dim=1), self.embed_tokens.empty_id)[:, start:]


class _DelayedNoise:
    """Gumbel noise of each frame, in its order, handed out in the delay pattern."""

    def __init__(self, rngs: Sequence[torch.Generator], frames: int, quantizers: int, classes: int) -> None:
        self.rngs, self.left, self.classes = rngs, frames, classes
        empty = torch.zeros(quantizers, len(rngs), classes)
        self._frames = deque([empty] * quantizers, maxlen=quantizers)  # the newest first

    def next(self) -> Float[Tensor, "batch quantizers classes"]:
        """The noise of the next position: quantizer q's is that of q frames ago."""
        quantizers = len(self._frames)
        new = self._frames[0]
        if self.left > 0:
            new = gumbel_noise(self.rngs, quantizers, self.classes, torch.device("cpu"))
        self.left -= 1
        self._frames.appendleft(new)
        return torch.stack([self._frames[quantizer][quantizer] for quantizer in range(quantizers)], dim=1)
