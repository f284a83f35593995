"""Folders of sound to aligned crops: the same moment of a file at the sample rate of every tokenizer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.audio import (
    SILENCE_STANDARD_DEVIATION,
    SoundError,
    WaveStatistics,
    fit_length,
    normalize,
    read_window,
    resample,
    samples_of,
)
from open_musiclm.data.draw_sampler import DrawOrder, random_generator
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError

Name = TypeVar("Name", Path, str)


@dataclass(frozen=True)
class Crop:
    """What one tokenizer hears: so many seconds at its sample rate, normalised over the whole file or not."""

    name: str
    seconds: float
    sample_hz: int
    normalized: bool


@dataclass(frozen=True)
class SoundFailure:
    """A sound file that could not be used, and why (a line that names it)."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SoundExample:
    """One wave per crop, by its name, and the files that were tried before the one that they come from."""

    waves: dict[str, Float[Tensor, "_"]]
    failures: list[SoundFailure]


@dataclass(frozen=True)
class SoundBatch:
    """Waves [batch, samples] by the name of their crop, and the files that failed on the way."""

    waves: dict[str, Float[Tensor, "batch _"]]
    failures: list[SoundFailure]

    def to(self, device: torch.device, non_blocking: bool = False) -> "SoundBatch":
        """The same batch with its waves on a device."""
        moved = {name: wave.to(device, non_blocking=non_blocking) for name, wave in self.waves.items()}
        return SoundBatch(moved, self.failures)


def collate_sounds(examples: Sequence[SoundExample]) -> SoundBatch:
    """A batch of examples that have the same crops."""
    names = examples[0].waves
    waves = {name: torch.stack([example.waves[name] for example in examples]) for name in names}
    return SoundBatch(waves, [failure for example in examples for failure in example.failures])


class SoundDataset(Dataset[SoundExample]):
    """The endless stream of crops of sound files: example `draw` is the same whoever asks for it, and when.

    Each epoch takes every file once, in an order of its own, at a random whole sample. The longest crop comes first,
    shorter ones lie anywhere inside it, equally long ones start together. A file that fails is replaced by the
    next one in the epoch's order.
    """

    def __init__(
        self, paths: Sequence[Path], crops: Sequence[Crop], seed: int, statistics: StatisticsCache | None = None
    ) -> None:
        if not paths:
            raise UserError("no sound file is left to take examples from; give more files or a smaller valid_frac")
        self.paths = list(paths)
        self.crops = sorted(crops, key=lambda crop: -crop.seconds)
        self.seed = seed
        self.statistics = statistics or StatisticsCache()
        self._order = DrawOrder(len(self.paths), seed)
        self._known_failures: dict[Path, str] = {}

    def __len__(self) -> int:
        """How many files there are; draws go on beyond it."""
        return len(self.paths)

    def __getitem__(self, draw: int) -> SoundExample:
        """The crops of a draw. Raises UserError where no file can be read."""
        failures: list[SoundFailure] = []
        for attempt in range(len(self.paths)):
            path = self._path(draw, attempt)
            try:
                return SoundExample(self._cut(path, random_generator(self.seed, draw)), failures)
            except SoundError as error:
                self._known_failures[path] = str(error)
                failures.append(SoundFailure(path, str(error)))
        raise UserError(f"none of the {len(self.paths)} sound files can be used; the first one is {failures[0].reason}")

    def _path(self, draw: int, attempt: int) -> Path:
        """The file of a draw; after failures the next ones of the same epoch, round about."""
        epoch, place = divmod(draw, len(self.paths))
        return self.paths[self._order.index(epoch * len(self.paths) + (place + attempt) % len(self.paths))]

    def _cut(self, path: Path, generator: np.random.Generator) -> dict[str, Float[Tensor, "_"]]:
        if path in self._known_failures:
            raise SoundError(self._known_failures[path])
        info = self.statistics.info(path)
        spans = [_span(crop.seconds, info.sample_hz) for crop in self.crops]
        firsts = nested_starts([info.frames, *spans], generator)
        window = read_window(path, firsts[0], spans[0], info)
        needs_statistics = any(crop.normalized for crop in self.crops) or _silent(window)
        statistics = self.statistics.of(path) if needs_statistics else None
        return {
            crop.name: cut(window[first - firsts[0] :], info.sample_hz, crop, statistics)
            for crop, first in zip(self.crops, firsts, strict=True)
        }


def nested_starts(spans: Sequence[int], generator: np.random.Generator) -> list[int]:
    """Random starts of spans, each inside the one before it: `spans[0]` is the whole, which begins at 0.

    Returns one start for each further span. Equal spans share theirs; one that is longer than the span before
    it starts together with it.
    """
    starts, first = [], 0
    for outer, inner in pairwise(spans):
        first += int(generator.integers(0, outer - inner, endpoint=True)) if inner < outer else 0
        starts.append(first)
    return starts


def cut(
    window: Float[Tensor, "_"], from_hz: int, crop: Crop, statistics: WaveStatistics | None
) -> Float[Tensor, "samples"]:
    """The beginning of a window as a crop wants it. `statistics` are those of the whole file."""
    wave = window[: _span(crop.seconds, from_hz)]
    if crop.normalized:
        assert statistics is not None
        wave = normalize(wave, statistics)
    return fit_length(resample(wave, from_hz, crop.sample_hz), samples_of(crop.seconds, crop.sample_hz))


def split(names: Sequence[Name], valid_frac: float, seed: int) -> tuple[list[Name], list[Name]]:
    """Training and validation files, both sorted: the same split wherever the same names are given.

    With any `valid_frac` above 0 there is at least one validation file, but never without one for training.
    """
    ordered = sorted(names)
    chosen = validation_places(len(ordered), valid_frac, seed)
    train = [name for index, name in enumerate(ordered) if index not in chosen]
    return train, [name for index, name in enumerate(ordered) if index in chosen]


def validation_places(count: int, valid_frac: float, seed: int) -> set[int]:
    """Which of `count` sorted names are for validation."""
    wanted = max(round(valid_frac * count), 1 if valid_frac > 0 else 0)
    return set(random_generator(seed, count).permutation(count)[: max(min(wanted, count - 1), 0)].tolist())


def _span(seconds: float, sample_hz: int) -> int:
    """Samples that hold all of `seconds`: never fewer than it needs."""
    return math.ceil(round(seconds * sample_hz, 6))


def _silent(window: Float[Tensor, "_"]) -> bool:
    return float(window.std(correction=0)) < SILENCE_STANDARD_DEVIATION
