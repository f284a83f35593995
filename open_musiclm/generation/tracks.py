"""Tokens along time: generated window by window as far as somebody asks, or encoded from a given sound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import StageName
from open_musiclm.generation.clap_track import ClapTrack
from open_musiclm.generation.planner import TickGrid, Window, split_windows
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.sampling import Sampling
from open_musiclm.generation.stage_generator import StageGenerator
from open_musiclm.tokens import TokenStream

Tokens = Int[Tensor, "batch _ quantizers"]


@runtime_checkable
class Track(Protocol):
    """Tokens along time that a later stage is conditioned on."""

    def tokens(self, start: int, end: int) -> Tokens:
        """The tokens of ticks [start, end), of every request of the batch."""


@dataclass(frozen=True)
class EncodedTrack:
    """Tokens of a given sound, the same for each of `batch` requests: each stretch is tokenized on its own, as training
    does with its crops."""

    encode: Callable[[int, int], Tokens]
    batch: int = 1

    def tokens(self, start: int, end: int) -> Tokens:
        return self.encode(start, end).expand(self.batch, -1, -1)


@dataclass(frozen=True)
class StageInputs:
    """What a stage generates with: how it samples, the rng of each request, CLAP tokens, and the track of the stage
    before, of which it gets the tokens of its whole `window` in ticks; `negative` are CLAP tokens to lead away from."""

    sampling: Sampling
    rngs: Sequence[torch.Generator]
    clap: ClapTrack
    source: Track | None
    window: int
    negative: Int[Tensor, "batch 1 quantizers"] | None = None


class GeneratedTrack:
    """One stage's tokens, extended by planned windows as far as they are asked for.

    Finished tokens wait in main memory: the device holds what one window needs, however long the music.
    """

    def __init__(
        self,
        generator: StageGenerator,
        inputs: StageInputs,
        grid: TickGrid,
        windows: Sequence[Window],
        prompt_tokens: Tokens,
        progress: Progress,
    ) -> None:
        self.generator, self.inputs, self.grid = generator, inputs, grid
        self.stream: TokenStream = generator.predicted
        self._planned = list(reversed(split_windows(windows, inputs.clap.starts)))
        self._device = prompt_tokens.device
        self._made = prompt_tokens.cpu()
        self._advanced = partial(_advance, progress, generator.name, self.stream)

    def tokens(self, start: int, end: int) -> Tokens:
        """The tokens of ticks [start, end); the windows up to there are made first."""
        first = self.grid.first_frame(self.stream, start)
        last = first + self.grid.frames(self.stream, end - start)
        while self._made.shape[1] < last:
            window, inputs = self._planned.pop(), self.inputs
            begin = self.grid.first_frame(self.stream, window.start)
            frames = begin + self.grid.frames(self.stream, window.end - window.start) - self._made.shape[1]
            context = self._made[:, begin:].to(self._device)
            conditioning: list[Tensor] = [inputs.clap.at(window.context_end)]
            if inputs.source is not None:
                conditioning.append(inputs.source.tokens(window.start, window.start + inputs.window))
            made = self.generator.generate(
                conditioning, context, frames, inputs.sampling, inputs.rngs, self._advanced, inputs.negative
            )
            self._made = torch.cat((self._made, made.cpu()), dim=1)
        return self._made[:, first:last].to(self._device)


def _advance(progress: Progress, stage: StageName, stream: TokenStream, frames: int) -> None:
    assert stream.frame_hz is not None
    progress.advance(stage, frames / stream.frame_hz)
