"""Folders of sound to aligned crops: the same segment of a file at the sample rate of every tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.audio import SILENCE_STANDARD_DEVIATION, SoundError
from open_musiclm.config.augment import AugmentConfig
from open_musiclm.data.augmentation import SoundChange, changed_window
from open_musiclm.data.crops import Crop, cut, nested_starts, span_of
from open_musiclm.data.example_order import ExampleOrder, random_generator
from open_musiclm.data.failures import SoundFailure, as_sound_error, first_usable
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError


@dataclass(frozen=True)
class SoundExample:
    """One wave per crop, by its name, and the files that failed before the one that the waves are from, `path`."""

    waves: dict[str, Float[Tensor, "_"]]
    failures: list[SoundFailure]
    path: Path = Path()


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
    """The endless stream of crops of sound files. Example `index` does not depend on earlier reads.

    Each epoch takes every file once, in a random order, at a random whole sample. The longest crop comes first,
    shorter ones lie anywhere inside it, equally long ones have the same start. The next file in the epoch's order
    replaces one that fails. With `augment` the longest crop is changed, and the others are cut out of it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        crops: Sequence[Crop],
        seed: int,
        statistics: StatisticsCache | None = None,
        augment: AugmentConfig | None = None,
    ) -> None:
        if not paths:
            raise UserError("no sound file is left to take examples from; give more files or a smaller valid_frac")
        self.paths = list(paths)
        self.crops = sorted(crops, key=lambda crop: -crop.seconds)
        self.seed = seed
        self.statistics = statistics or StatisticsCache()
        self.augment = augment
        self._order = ExampleOrder(len(self.paths), seed)
        self._failed: dict[Path, str] = {}

    def __len__(self) -> int:
        """The number of files; example indices have no limit."""
        return len(self.paths)

    def __getitem__(self, index: int) -> SoundExample:
        """The crops of example `index`. Raises UserError if no file can be read."""
        paths = (self.paths[item] for item in self._order.candidates(index))
        (path, waves), failures = first_usable(
            paths, lambda path: (path, self._waves(path, random_generator(self.seed, index))), Path
        )
        return SoundExample(waves, failures, path)

    def _waves(self, path: Path, generator: np.random.Generator) -> dict[str, Float[Tensor, "_"]]:
        """The crops of a file, which is not tried again after it failed once. Raises SoundError."""
        if path in self._failed:
            raise SoundError(self._failed[path])
        try:
            with as_sound_error(path):
                return self._cut(path, generator)
        except SoundError as error:
            self._failed[path] = str(error)
            raise

    def _cut(self, path: Path, generator: np.random.Generator) -> dict[str, Float[Tensor, "_"]]:
        info = self.statistics.info(path)
        spans = [span_of(crop, info.sample_hz) for crop in self.crops]
        firsts = nested_starts([info.frames, *spans], generator)
        change = SoundChange() if self.augment is None else SoundChange.draw(self.augment, generator)
        window = changed_window(path, firsts[0], spans[0], info, change)
        # Those of a file that is silent as a whole raise SoundError.
        needs_statistics = any(crop.normalized for crop in self.crops) or _silent(window)
        statistics = change.statistics(self.statistics.of(path)) if needs_statistics else None
        return {
            crop.name: cut(window[first - firsts[0] :], info.sample_hz, crop, statistics)
            for crop, first in zip(self.crops, firsts, strict=True)
        }


def _silent(window: Float[Tensor, "_"]) -> bool:
    return float(window.std(correction=0)) < SILENCE_STANDARD_DEVIATION
