"""Tokens along time: generated window by window on demand, or encoded from a given sound."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import StageName
from open_musiclm.generation.decoding.sampling import Sampling
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.generation.planner import TickGrid, Window, split_windows
from open_musiclm.generation.progress import Progress
from open_musiclm.tokens import TokenStream

ClapTokens = Int[Tensor, "batch 1 quantizers"]


@dataclass(frozen=True)
class ClapTrack:
    """A batch's CLAP tokens: `tokens[i]` from tick `starts[i]` on; before the first start those are the first ones."""

    starts: Sequence[int]
    tokens: Sequence[ClapTokens]

    @classmethod
    def constant(cls, tokens: ClapTokens) -> "ClapTrack":
        """The same all the time."""
        return cls([0], [tokens])

    def at(self, tick: int) -> ClapTokens:
        """The tokens at `tick`."""
        return self.tokens[max(bisect_right(self.starts, tick) - 1, 0)]


def tokens_along(
    steps: Sequence[Sequence[tuple[float, Int[Tensor, "1 quantizers"]]]],
) -> list[tuple[float, ClapTokens]]:
    """The steps of several requests, (second, tokens) each, as steps of a batch."""
    starts = sorted({start for own in steps for start, _ in own})
    return [(start, torch.stack([_last(own, start) for own in steps])) for start in starts]


def _last(steps: Sequence[tuple[float, Tensor]], second: float) -> Tensor:
    return [tokens for start, tokens in steps if start <= second][-1]


Tokens = Int[Tensor, "batch _ quantizers"]


@runtime_checkable
class Track(Protocol):
    """Tokens along time that a later stage is conditioned on."""

    def tokens(self, start: int, end: int) -> Tokens:
        """The tokens of ticks [start, end), of every request of the batch."""


@dataclass(frozen=True)
class EncodedTrack:
    """Tokens of a given sound, the same for each of `batch` requests. Each segment is tokenized by itself, as a crop is
    in training."""

    encode: Callable[[int, int], Tokens]
    batch: int = 1

    def tokens(self, start: int, end: int) -> Tokens:
        """See `Track.tokens`."""
        return self.encode(start, end).expand(self.batch, -1, -1)


class EncodedBlocks:
    """Tokens of a given sound, the same for each of `batch` requests. Blocks of `block` ticks are tokenized, each once,
    so the tokens of a tick do not depend on the segment that is asked for. A tick has `frames` frames."""

    def __init__(self, encode: Callable[[int, int], Tokens], block: int, frames: int, batch: int) -> None:
        self._encode, self._block, self._frames, self._batch = encode, block, frames, batch
        self._blocks: dict[int, Tokens] = {}

    def tokens(self, start: int, end: int) -> Tokens:
        """See `Track.tokens`."""
        first = start // self._block
        known = torch.cat([self._at(number) for number in range(first, -(-end // self._block))], dim=1)
        begin, stop = ((tick - first * self._block) * self._frames for tick in (start, end))
        return known[:, begin:stop].expand(self._batch, -1, -1)

    def _at(self, number: int) -> Tokens:
        if number not in self._blocks:
            start = number * self._block
            self._blocks[number] = self._encode(start, start + self._block)
        return self._blocks[number]


@dataclass(frozen=True)
class StageInputs:
    """The inputs of a stage: sampling settings, an rng per request, CLAP tokens, and the track of the stage before it,
    from which it takes the whole `window` (ticks). Guidance moves away from the CLAP tokens `negative`."""

    sampling: Sampling
    rngs: Sequence[torch.Generator]
    clap: ClapTrack
    source: Track | None
    window: int
    negative: Int[Tensor, "batch 1 quantizers"] | None = None


class GeneratedTrack:
    """One stage's tokens, generated window by window on demand.

    Finished tokens are kept in main memory: the device holds one window, however long the music is.
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
        self._on_frame = partial(_advance_a_frame, progress, generator.name, self.stream)

    def tokens(self, start: int, end: int) -> Tokens:
        """The tokens of ticks [start, end); generates the windows up to there first."""
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
                conditioning, context, frames, inputs.sampling, inputs.rngs, self._on_frame, inputs.negative
            )
            self._made = torch.cat((self._made, made.cpu()), dim=1)
        return self._made[:, first:last].to(self._device)


def _advance_a_frame(progress: Progress, stage: StageName, stream: TokenStream) -> None:
    assert stream.frame_hz is not None
    progress.advance(stage, 1 / stream.frame_hz)
