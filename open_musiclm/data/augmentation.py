"""Small changes of level, pitch and tempo before tokenization, so that all tokens agree."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import SoundInfo, WaveStatistics, read_window, repeat_to, resample
from open_musiclm.config.augment import AugmentConfig

_WINDOW_SECONDS = 0.046  # of the phase vocoder
_OVERLAP = 4
_RATE_STEPS = 1000  # a pitch within 0.1 %
_SMALLEST = 1e-3  # smaller changes of tempo need no vocoder


@dataclass(frozen=True)
class SoundChange:
    """Factors of level, pitch and tempo; 1 changes nothing."""

    gain: float = 1.0
    pitch: float = 1.0
    tempo: float = 1.0

    @classmethod
    def draw(cls, config: AugmentConfig, generator: np.random.Generator) -> "SoundChange":
        """A random change within the bounds of a config."""
        gain, pitch, tempo = generator.uniform(-1, 1, size=3)
        return cls(
            gain=10 ** (gain * config.gain_db / 20),
            pitch=2 ** (pitch * config.pitch_semitones / 12),
            tempo=1 + tempo * config.tempo,
        )

    def samples_needed(self, samples: int) -> int:
        """The number of samples that the change turns into `samples`; never too few."""
        return math.ceil(samples * self.tempo * (1 + 2 * _SMALLEST)) + 2

    def apply(self, wave: Float[Tensor, "_"], sample_hz: int, samples: int) -> Float[Tensor, "samples"]:
        """The changed wave, exactly `samples` long."""
        pitch = round(_RATE_STEPS * self.pitch)
        shifted = resample(wave, pitch, _RATE_STEPS)  # higher, and faster by the same factor
        return repeat_to(_stretched(shifted, sample_hz, self.tempo * _RATE_STEPS / pitch), samples) * self.gain

    def statistics(self, of: WaveStatistics) -> WaveStatistics:
        """The statistics of the changed file: only the level matters."""
        return WaveStatistics(of.mean * self.gain, of.standard_deviation * self.gain)


def changed_window(
    path: Path, first: int, samples: int, info: SoundInfo, change: SoundChange
) -> Float[Tensor, "samples"]:
    """`samples` changed samples of a file from `first` on, or from earlier if the file would end too early.

    Raises SoundError.
    """
    if change == SoundChange():
        return read_window(path, first, samples, info)
    needed = change.samples_needed(samples)
    window = read_window(path, max(min(first, info.frames - needed), 0), needed, info)
    return change.apply(window, info.sample_hz, samples)


def _stretched(wave: Float[Tensor, "_"], sample_hz: int, rate: float) -> Float[Tensor, "_"]:
    """The wave `rate` times as fast at the same pitch (a phase vocoder, Flanagan and Golden 1966)."""
    if abs(rate - 1) < _SMALLEST:
        return wave
    size = 1 << round(math.log2(_WINDOW_SECONDS * sample_hz))
    hop, window = size // _OVERLAP, torch.hann_window(size)
    spectrum = torch.stft(wave, size, hop, window=window, return_complex=True, pad_mode="constant")
    advance = torch.linspace(0, math.pi * hop, spectrum.shape[0])[:, None]
    changed = torchaudio.functional.phase_vocoder(spectrum, rate, advance)
    return torch.istft(changed, size, hop, window=window, length=round(wave.shape[0] / rate))
