"""One stage generates one window of tokens: prefill, then decode step by step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.cached_transformer import CachedTransformer, KVCache
from open_musiclm.generation.decoding.cuda_graphs import GraphCache
from open_musiclm.generation.decoding.sampling import Sampling
from open_musiclm.generation.decoding.threads import AdaptiveThreads
from open_musiclm.models.stages import Stage
from open_musiclm.models.token_layout import PADDING, Ids

# The capacity of captured steps is a multiple of this, so that windows of similar length share a graph.
_CAPTURED_POSITIONS = 512


@dataclass
class DecodeState:
    """The memory that decode steps of one window read and write.

    `hidden` is the last position's; `ids` are the last tokens sampled, with `noise`. `attended` is the number of
    positions that a step attends to. With guidance every request has two rows, the second without its condition.
    """

    cache: KVCache
    hidden: Float[Tensor, "rows dim"]
    ids: Int[Tensor, "batch quantizers"]
    noise: Float[Tensor, "_ _ classes"]
    attended: int


State = TypeVar("State", bound=DecodeState)


class StageGenerator(ABC, Generic[State]):
    """A stage's weights in `precision`, arranged for generation; the position bias stays in float32.

    Keeps no reference to the transformer, whose memory can be freed. Each token layout has its own generator; a `State`
    is the memory that the decode steps of a window read and write.
    """

    def __init__(self, stage: Stage, precision: torch.dtype) -> None:
        self.name = stage.name
        self.sequences, self.predicted = stage.sequences, stage.predicted
        self.condition_dropout = stage.condition_dropout
        self.transformer = CachedTransformer(stage.layout.transformer, precision)
        self.precision = precision
        # On a GPU the work of a frame is one graph; elsewhere its operations run one by one.
        self.graphs: GraphCache[State] | None = None
        if self.transformer.norm.device.type == "cuda":
            self.graphs = GraphCache()
        self.threads = AdaptiveThreads()

    def check(self, sampling: Sampling) -> None:
        """Raises UserError if the stage does not support these settings."""
        if sampling.cfg_scale != 1 and not self.condition_dropout:
            raise UserError(
                f"cfg_scale {sampling.cfg_scale}: the {self.name} stage was trained without condition_dropout, which "
                "guidance needs; leave it out, or train with that key in the model config"
            )

    @abstractmethod
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
        """The `frames` frames that follow `context`, in a window that starts where `context` starts.

        Request b uses `rngs[b]`, whatever the batch. Calls `on_frame` after every frame. Guidance moves away from
        the CLAP tokens `negative`; by default from the unconditional prediction.
        """

    @abstractmethod
    def empty_state(self, batch: int, rows: int, capacity: int) -> State:
        """Memory for `batch` requests in `rows` rows, with room for `capacity` positions."""

    @abstractmethod
    def decode_next(self, state: State, sampling: Sampling) -> None:
        """Generates one frame, on that memory."""

    def prepare(self, batch: int, rows: int, length: int, sampling: Sampling) -> tuple[State, Callable[[], None]]:
        """Memory for a window of `length` positions, and a function that generates its next frame."""
        if self.graphs is None:
            state = self.empty_state(batch, rows, length)
            return state, partial(self.threads.run, partial(self.decode_next, state, sampling))
        capacity = -(-length // _CAPTURED_POSITIONS) * _CAPTURED_POSITIONS
        device = self.transformer.norm.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # any thread may generate
            return self.graphs.get(
                (rows, capacity, sampling),
                lambda: self.empty_state(batch, rows, capacity),
                lambda state: self.decode_next(state, sampling),
            )


def with_guidance_rows(
    conditioning: Sequence[Int[Tensor, "batch ..."]], negative: Int[Tensor, "batch ..."] | None
) -> list[Int[Tensor, "rows ..."]]:
    """Doubles the rows for guidance: the second half has its conditioning masked, like condition dropout in training.

    With a negative prompt, its CLAP tokens replace those of the prompt instead, and the other conditioning stays.
    """
    if negative is None:
        others = [torch.full_like(ids, PADDING) for ids in conditioning]
    else:
        others = [negative, *conditioning[1:]]
    return [torch.cat(pair) for pair in zip(conditioning, others, strict=True)]
