"""Crops of sound with the codes of a frozen codec, which are computed once and kept on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.audio import SoundError, SoundInfo, read_samples, repeat_to, sound_info
from open_musiclm.data.crops import Crop, cut, span_of
from open_musiclm.data.example_order import ExampleOrder, random_generator, rotated
from open_musiclm.data.failures import SoundFailure, as_sound_error, first_usable
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.errors import UserError

CROP = "codec"


@runtime_checkable
class CodeSource(Protocol):
    """Codes of segments of sound files, one segment per index."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> Path:
        """The sound file."""

    def start_seconds(self, index: int) -> float:
        """Where in the file the first code frame begins."""

    def codes(self, index: int, first: int, count: int) -> Int[Tensor, "count quantizers"]:
        """`count` frames from frame `first` on. Raises UserError or SoundError if they cannot be read."""

    def frames(self, index: int) -> int:
        """How many frames there are."""


@dataclass(frozen=True)
class CodedExample:
    """A crop of a wave, its codes, and the files that failed on the way."""

    wave: Float[Tensor, "samples"]
    codes: Int[Tensor, "time quantizers"]
    failures: list[SoundFailure]


@dataclass(frozen=True)
class CodedBatch(SoundBatch):
    """Waves, as the crop "codec", and the codes of each."""

    codes: Int[Tensor, "batch time quantizers"]

    def to(self, device: torch.device, non_blocking: bool = False) -> "CodedBatch":
        """The same batch on a device."""
        waves = {name: wave.to(device, non_blocking=non_blocking) for name, wave in self.waves.items()}
        return CodedBatch(waves, self.failures, self.codes.to(device, non_blocking=non_blocking))


class CodedSounds(Dataset[CodedExample]):
    """Example `index` of the stream is a random crop of one segment of epoch index // segments, in a random order; with
    `random_crops` false the segments in order, and their middles. The next segment replaces one that fails."""

    def __init__(
        self,
        source: CodeSource,
        segments: Sequence[int] | Int[np.ndarray, "segments"],
        crop: Crop,
        hop: int,
        seed: int,
        random_crops: bool,
    ) -> None:
        if not len(segments):
            raise UserError("no sound file is left to take examples from; give more files or a smaller valid_frac")
        self.source, self.crop, self.hop, self.seed = source, crop, hop, seed
        self.segments = np.asarray(segments)  # of millions a list would be copied by every data worker
        self.random_crops = random_crops
        self.crop_frames = round(crop.seconds * crop.sample_hz) // hop
        self._order = ExampleOrder(len(self.segments), seed)
        self._infos: dict[Path, SoundInfo] = {}

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> CodedExample:
        """The crop of example `index`. Raises UserError if no file can be read."""
        items = self._order.candidates(index) if self.random_crops else rotated(len(self.segments), index)
        segments = (int(self.segments[item]) for item in items)
        example, failures = first_usable(segments, lambda segment: self._example(segment, index), self.source.path)
        return replace(example, failures=failures)

    def _example(self, segment: int, index: int) -> CodedExample:
        path, spare = self.source.path(segment), self.source.frames(segment) - self.crop_frames
        if spare < 0:
            raise SoundError(f"{path}: shorter than crop_seconds, {self.crop.seconds} s")
        random = random_generator(self.seed, index).integers(spare, endpoint=True)
        first = int(random) if self.random_crops else spare // 2
        with as_sound_error(path):
            if path not in self._infos:
                self._infos[path] = sound_info(path)
            info = self._infos[path]
            begin = round(self.source.start_seconds(segment) * info.sample_hz)
            offset = round(first * self.hop / self.crop.sample_hz * info.sample_hz)
            window = _repeated(path, info, begin, offset, span_of(self.crop, info.sample_hz))
            wave = cut(window, info.sample_hz, self.crop, None)
        return CodedExample(wave, self.source.codes(segment, first, self.crop_frames), [])


def _repeated(path: Path, info: SoundInfo, begin: int, offset: int, frames: int) -> Float[Tensor, "frames"]:
    """`frames` samples from `offset` on, of the sound that begins at `begin` and is repeated where the file ends."""
    period = info.frames - begin
    if period <= 0:
        raise SoundError(f"{path}: ends before its codes begin; has the file changed?")
    offset %= period
    window = read_samples(path, begin + offset, min(frames, period - offset))
    rest = frames - len(window)
    if rest:
        window = torch.cat([window, repeat_to(read_samples(path, begin, min(rest, period)), rest)])
    return window


def collate_coded(examples: Sequence[CodedExample]) -> CodedBatch:
    """A batch of examples of equal length."""
    return CodedBatch(
        {CROP: torch.stack([example.wave for example in examples])},
        [failure for example in examples for failure in example.failures],
        torch.stack([example.codes for example in examples]).long(),
    )
