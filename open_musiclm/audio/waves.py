"""Waves in memory: lengths, windows, statistics, normalisation."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

SILENCE_STANDARD_DEVIATION = 1e-5
_NORMALIZATION_EPSILON = 1e-7  # that of HuBERT's feature extractor


@dataclass(frozen=True)
class Sound:
    """A mono wave and its rate."""

    wave: Float[Tensor, "samples"]
    sample_hz: int

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.wave.shape[0] / self.sample_hz


@dataclass(frozen=True)
class FileSound(Sound):
    """The mono wave of a sound file, or of its beginning; `path` is the file's."""

    path: Path


@dataclass(frozen=True)
class WaveStatistics:
    """Mean and unbiased standard deviation of a wave."""

    mean: float
    standard_deviation: float

    @property
    def silent(self) -> bool:
        """Whether the deviation is that of silence."""
        return self.standard_deviation < SILENCE_STANDARD_DEVIATION


def samples_of(seconds: float, sample_hz: int) -> int:
    """The rounded number of samples in `seconds`."""
    return round(seconds * sample_hz)


def fit_length(wave: Float[Tensor, "*batch samples"], samples: int) -> Float[Tensor, "*batch fitted"]:
    """Cuts the end, or appends zeros, to exactly `samples`."""
    return torch.nn.functional.pad(wave, (0, samples - wave.shape[-1]))


def repeat_to(wave: Float[Tensor, "samples"], samples: int) -> Float[Tensor, "repeated"]:
    """Repeats a wave from its beginning up to exactly `samples`, or cuts it there."""
    if wave.shape[0] >= samples:
        return wave[:samples]
    return wave.repeat(math.ceil(samples / wave.shape[0]))[:samples]


def windows_of(wave: Float[Tensor, "... samples"], window: int) -> list[Float[Tensor, "... window"]]:
    """A wave in windows of `window` samples; where the last would be shorter, it begins earlier.

    A wave shorter than `window` is one window of its own length.
    """
    windows = list(wave.split(window, dim=-1))
    if len(windows) > 1:
        windows[-1] = wave[..., -window:]
    return windows


def statistics_of(wave: Float[Tensor, "samples"]) -> WaveStatistics:
    """Mean and unbiased deviation of a wave."""
    deviation = float(wave.double().std()) if wave.shape[0] > 1 else 0.0
    return WaveStatistics(float(wave.double().mean()), deviation)


def normalize(wave: Float[Tensor, "*batch samples"], statistics: WaveStatistics) -> Float[Tensor, "*batch samples"]:
    """Zero mean and unit variance by the statistics of the whole file, as MERT's input is."""
    return (wave - statistics.mean) / math.sqrt(statistics.standard_deviation**2 + _NORMALIZATION_EPSILON)


def to_int16_and_back(wave: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
    """The int16 round trip that CLAP was trained with: clamp, truncate towards zero."""
    return (wave.clamp(-1, 1) * 32767).trunc() / 32767
