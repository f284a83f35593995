"""Tokens along time: generated window by window as far as somebody asks, or encoded from a given sound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import StageName
from open_musiclm.generation.planner import TickGrid, Window
from open_musiclm.generation.sampling import Sampling
from open_musiclm.generation.stage_generator import StageGenerator
from open_musiclm.tokens import TokenStream

Tokens = Int[Tensor, "batch _ quantizers"]


class Progress:
    """Receives how much music each stage has made; this one ignores it."""

    def begin(self, stage: str, seconds: float) -> None:
        """A stage will make `seconds` of music."""

    def advance(self, stage: str, seconds: float) -> None:
        """It has made `seconds` more."""


@runtime_checkable
class Track(Protocol):
    """Tokens along time that a later stage is conditioned on."""

    def tokens(self, start: int, end: int) -> Tokens:
        """The tokens of ticks [start, end), of every request of the batch."""


@dataclass(frozen=True)
class EncodedTrack:
    """Tokens of a given sound: each stretch is tokenized on its own, as training does with its crops."""

    encode: Callable[[int, int], Tokens]

    def tokens(self, start: int, end: int) -> Tokens:
        return self.encode(start, end)


@dataclass(frozen=True)
class WindowMaker:
    """Makes a stage's tokens in one window, conditioned on CLAP tokens and on the window's tokens of `source`.

    `window` is the stage's window in ticks: what `source` is asked for, however short the made part is.
    """

    generator: StageGenerator
    sampling: Sampling
    rngs: Sequence[torch.Generator]
    clap_tokens: Int[Tensor, "batch 1 quantizers"]
    source: Track | None
    window: int
    progress: Progress
    seconds_per_frame: float

    def __call__(self, window: Window, context: Tokens, frames: int) -> Tokens:
        """The next `frames` frames after `context`, which starts with the window."""
        conditioning: list[Tensor] = [self.clap_tokens]
        if self.source is not None:
            conditioning.append(self.source.tokens(window.start, window.start + self.window))
        name: StageName = self.generator.name
        return self.generator.generate(
            conditioning,
            context,
            frames,
            self.sampling,
            self.rngs,
            lambda made: self.progress.advance(name, made * self.seconds_per_frame),
        )


class GeneratedTrack:
    """One stage's tokens, extended by planned windows as far as they are asked for.

    Finished tokens wait in main memory: the device holds what one window needs, however long the music.
    """

    def __init__(
        self,
        stream: TokenStream,
        grid: TickGrid,
        windows: Sequence[Window],
        prompt_tokens: Tokens,
        make: Callable[[Window, Tokens, int], Tokens],
    ) -> None:
        """`make(window, context, frames)` gives the next `frames` frames of the window after its context."""
        self.stream, self.grid, self.make = stream, grid, make
        self._planned = list(reversed(windows))
        self._device = prompt_tokens.device
        self._made = prompt_tokens.cpu()

    def window_ends(self) -> list[int]:
        """The ends, in ticks, of the windows that are still to be made."""
        return [window.end for window in reversed(self._planned)]

    def select(self, indices: Int[Tensor, "selected"]) -> None:
        """Keeps the tokens of these places of the batch, each as often as it is named."""
        self._made = self._made[indices]

    def tokens(self, start: int, end: int) -> Tokens:
        """The tokens of ticks [start, end); the windows up to there are made first."""
        first = self.grid.first_frame(self.stream, start)
        last = first + self.grid.frames(self.stream, end - start)
        while self._made.shape[1] < last:
            window = self._planned.pop()
            begin = self.grid.first_frame(self.stream, window.start)
            frames = begin + self.grid.frames(self.stream, window.end - window.start) - self._made.shape[1]
            made = self.make(window, self._made[:, begin:].to(self._device), frames)
            self._made = torch.cat((self._made, made.cpu()), dim=1)
        return self._made[:, first:last].to(self._device)


def finished_track(stream: TokenStream, grid: TickGrid, tokens: Tokens) -> GeneratedTrack:
    """A track whose tokens are all there."""
    return GeneratedTrack(stream, grid, [], tokens, _nothing_to_make)


def _nothing_to_make(window: Window, context: Tokens, frames: int) -> Tokens:
    raise AssertionError(f"{frames} frames were asked for beyond {window}")
