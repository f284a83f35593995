"""One stage generating: a window of tokens from its conditioning, one new position per token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.generation.decoder import IncrementalTransformer, State
from open_musiclm.generation.linear import PackedLinear
from open_musiclm.generation.sampling import Sampling, guided, gumbel_noise, sample
from open_musiclm.models.stages import Ids, Stage
from open_musiclm.models.token_sequences import PADDING, append_end, conditioning_mask, flatten_ids, moments_of

# Captured graphs have room for a multiple of this many positions, so that windows of similar length share one.
_CAPTURED_POSITIONS = 512


@dataclass
class Window:
    """A window in the making: the transformer's state, and what the next time step is made from and into.

    `seen` is the number of positions that a step looks at: all there is room for, or just those that are there. With
    guidance every sample has two rows, the second without its condition.
    """

    state: State
    hidden: Float[Tensor, "rows dim"]
    number: Int[Tensor, "1"]
    noise: Float[Tensor, "quantizers batch classes"]
    ids: Int[Tensor, "batch quantizers"]
    seen: int


class StageGenerator:
    """Generates with a stage's weights in `precision`; the position bias stays in float32.

    `stage` itself is not kept: later changes of its weights are not seen, and its memory can be freed.
    """

    def __init__(self, stage: Stage, precision: torch.dtype = torch.float32) -> None:
        decoder = stage.decoder
        self.sequences, self.predicted = stage.sequences, stage.predicted
        self.default_sampling = Sampling({"semantic": 1.0, "coarse": 0.95, "fine": 0.4}[stage.name])
        self.condition_dropout = stage.condition_dropout
        self.transformer = IncrementalTransformer(decoder.transformer, precision)
        self.embeddings = [decoder.embedding(index) for index in range(len(self.sequences))]
        self.to_logits = [PackedLinear(weight.to(precision)) for weight in decoder.logit_weights[-1]]
        self.precision = precision
        # On a GPU a time step is one graph, captured once for all windows of a size; elsewhere it is run as it stands.
        self.capture = captured_graph if self.transformer.norm.device.type == "cuda" else None
        self._captured: dict[tuple[int, int, Sampling], tuple[Window, Callable[[], None]]] = {}

    def check(self, sampling: Sampling) -> None:
        """Raises UserError where the stage cannot sample so."""
        if sampling.cfg_scale != 1 and not self.condition_dropout:
            raise UserError(
                f"cfg_scale {sampling.cfg_scale}: the {self.predicted.name} stage was trained without "
                "condition_dropout, which guidance needs; leave it out, or train with that key in the model config"
            )

    @torch.inference_mode()
    def generate(
        self,
        conditioning: Sequence[Ids],
        known: Int[Tensor, "batch known quantizers"],
        frames: int,
        sampling: Sampling,
        streams: list[torch.Generator],
        advanced: Callable[[int], None],
    ) -> Int[Tensor, "batch frames quantizers"]:
        """The `frames` time steps that follow `known`, within one window that begins where `known` begins.

        Sees what training saw: the end ids of the conditioning are present, and hidden. Row b draws from
        `streams[b]`, whatever the batch. `advanced` is told after every time step.
        """
        quantizers = self.predicted.quantizers
        fixed = [append_end(flatten_ids(t), kind) for t, kind in zip(conditioning, self.sequences[:-1], strict=True)]
        tokens = flatten_ids(known)
        if sampling.cfg_scale != 1:
            fixed, tokens = _with_unconditional(fixed, tokens)
        noise = gumbel_noise(streams, frames * quantizers, self.predicted.codebook_size + 1, known.device)
        length = sum(ids.shape[1] + 1 for ids in (*fixed, tokens)) + frames * quantizers
        window, make_step = self._window(known.shape[0], tokens.shape[0], length, sampling, known.device)
        made: list[Tensor] = []
        self._begin(window, fixed, tokens)
        for frame, draw in enumerate(noise.split(quantizers), start=1):
            window.noise.copy_(draw)
            if self.capture is None:
                window.seen = length - (frames - frame) * quantizers
            if self._in_prefix(fixed, tokens):
                tokens = self._make_step_within_prefix(window, fixed, tokens, sampling)
            else:
                make_step()
            made.append(window.ids.clone())
            advanced(1)
        return torch.stack(made, dim=1) if made else known[:, :0]

    def _window(
        self, batch: int, rows: int, length: int, sampling: Sampling, device: torch.device
    ) -> tuple[Window, Callable[[], None]]:
        """Room for a window of `length` positions, and what makes its next time step."""
        if self.capture is None:
            window = self._empty_window(batch, rows, length, device)
            return window, lambda: self._make_step(window, sampling)
        capacity = -(-length // _CAPTURED_POSITIONS) * _CAPTURED_POSITIONS
        key = (rows, capacity, sampling)
        if key not in self._captured:
            window = self._empty_window(batch, rows, capacity, device)
            self._captured[key] = (window, self.capture(lambda: self._make_step(window, sampling)))
        return self._captured[key]

    def _empty_window(self, batch: int, rows: int, capacity: int, device: torch.device) -> Window:
        quantizers, classes = self.predicted.quantizers, self.predicted.codebook_size + 1
        return Window(
            self.transformer.empty_state(rows, capacity),
            hidden=torch.zeros(rows, self.transformer.norm.shape[0], dtype=self.precision, device=device),
            number=torch.zeros(1, dtype=torch.long, device=device),
            noise=torch.zeros(quantizers, batch, classes, device=device),
            ids=torch.zeros(batch, quantizers, dtype=torch.long, device=device),
            seen=capacity,
        )

    def _begin(self, window: Window, fixed: list[Tensor], tokens: Int[Tensor, "rows known"]) -> None:
        """Runs all that is known through the network."""
        ids = [*fixed, tokens]
        embedded = [embedding.whole(sequence) for embedding, sequence in zip(self.embeddings, ids, strict=True)]
        mask: Bool[Tensor, "rows time"] = conditioning_mask(self.sequences, ids)
        x = torch.cat(embedded, dim=1).to(self.precision)
        others = [sequence.shape[1] for sequence in fixed]
        room = window.state.capacity - sum(others) - len(ids)
        moments = moments_of(self.sequences, [*others, room], x.device)
        window.hidden.copy_(self.transformer.begin(x, mask, moments, window.state))
        window.number.fill_(tokens.shape[1])

    def _make_step(self, window: Window, sampling: Sampling) -> None:
        """The ids of the next time step, one quantizer after the other, each run through the network."""
        for quantizer in range(self.predicted.quantizers):
            ids = self._draw(window, quantizer, sampling)
            rows = ids.repeat(window.hidden.shape[0] // ids.shape[0]).unsqueeze(1)
            embedded = self.embeddings[-1].tokens(rows, window.number).squeeze(1).to(self.precision)
            window.hidden.copy_(self.transformer.step(embedded, window.state, window.seen))
            window.number.add_(1)

    def _make_step_within_prefix(
        self, window: Window, fixed: list[Tensor], tokens: Int[Tensor, "rows known"], sampling: Sampling
    ) -> Int[Tensor, "rows known_and_new"]:
        """The same where a new position changes the earlier ones, which the non-causal prefix makes see it."""
        for quantizer in range(self.predicted.quantizers):
            ids = self._draw(window, quantizer, sampling)
            rows = ids.repeat(tokens.shape[0] // ids.shape[0])
            tokens = torch.cat((tokens, rows.unsqueeze(1)), dim=1)
            self._begin(window, fixed, tokens)
        return tokens

    def _in_prefix(self, fixed: list[Tensor], tokens: Int[Tensor, "rows known"]) -> bool:
        return sum(ids.shape[1] + 1 for ids in (*fixed, tokens)) < self.transformer.prefix

    def _draw(self, window: Window, quantizer: int, sampling: Sampling) -> Int[Tensor, "batch"]:
        logits = guided(self.to_logits[quantizer](window.hidden).float(), sampling)
        ids = sample(logits, window.noise[quantizer], sampling)
        window.ids[:, quantizer] = ids
        return ids


def captured_graph(work: Callable[[], None]) -> Callable[[], None]:
    """`work`, which always does the same operations on the same CUDA memory, as one graph.

    Runs it a few times: the caller resets what it changes.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _with_unconditional(fixed: list[Tensor], tokens: Tensor) -> tuple[list[Tensor], Tensor]:
    """Every row once more with its conditioning hidden, as condition dropout hides it in training."""
    doubled = [torch.cat((ids, torch.full_like(ids, PADDING))) for ids in fixed]
    return doubled, torch.cat((tokens, tokens))
