"""The only code that opens sound files: find, inspect, read a crop, resample, write.

Waves are mono float32 tensors [samples]; times are seconds, rates Hz. Sample counts are rounded and made
exact: 2.3 s at 24 kHz is 55,200 samples.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.files import appearing_whole

SOUND_EXTENSIONS = frozenset((".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".caf", ".au"))
# What a header may promise beyond the last sample before the file counts as truncated (mp3 headers are loose).
TOLERATED_SHORTFALL_SECONDS = 0.1
SILENCE_STANDARD_DEVIATION = 1e-5
_BLOCK_FRAMES = 1 << 20
_PLAUSIBLE_HZ = (1000, 1_000_000)
# Rates with hardly a common divisor make the resampling kernel huge; this keeps the pitch within 0.0001 %, or
# within 0.05 % where one rate is almost a multiple of the other (44,099 and 44,100 Hz).
_LARGEST_RATIO_TERM = 1000


class SoundError(UserError):
    """A sound file that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Sound:
    """A mono wave and its rate."""

    wave: Float[Tensor, "samples"]
    sample_hz: int

    @property
    def seconds(self) -> float:
        return self.wave.shape[0] / self.sample_hz


@dataclass(frozen=True)
class SoundInfo:
    """What the header of a sound file says."""

    frames: int
    sample_hz: int
    channels: int
    format: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_hz


@dataclass(frozen=True)
class WaveStatistics:
    """Mean and standard deviation (unbiased) of a whole file's mono wave."""

    mean: float
    standard_deviation: float

    @property
    def silent(self) -> bool:
        return self.standard_deviation < SILENCE_STANDARD_DEVIATION


def find_sounds(folder: Path) -> list[Path]:
    """All sound files below `folder`, sorted; extensions match in any case. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of sound")
    found = [Path(root) / name for root, _, names in os.walk(folder, followlinks=True) for name in names]
    sounds = sorted(path for path in found if path.suffix.lower() in SOUND_EXTENSIONS)
    if not sounds:
        kinds = " ".join(sorted(SOUND_EXTENSIONS))
        raise UserError(f"{folder}: no sound file in this folder or below it (looked for {kinds})")
    return sounds


def samples_of(seconds: float, sample_hz: int) -> int:
    """The rounded number of samples in `seconds`."""
    return round(seconds * sample_hz)


def sound_info(path: Path) -> SoundInfo:
    """Reads the header. Raises SoundError where the file is missing, empty or not sound."""
    with _open(path) as file:
        return SoundInfo(file.frames, file.samplerate, file.channels, file.format)


def read_samples(path: Path, start: int = 0, frames: int | None = None) -> Float[Tensor, "samples"]:
    """Mono samples [start, start + frames) at the file's own rate; without `frames`, to its end.

    A seek costs the same anywhere in a file, except in an mp3, whose frames are counted from the beginning: 0.3 s for
    three hours. Raises SoundError where the file ends early, cannot be decoded or holds numbers that are not finite.
    """
    with _open(path) as file:
        frames = file.frames - start if frames is None else frames
        try:
            file.seek(min(start, file.frames))
            samples = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise SoundError(f"{path}: damaged sound: {error.error_string}") from error
        missing = frames - len(samples)
        if missing > TOLERATED_SHORTFALL_SECONDS * file.samplerate or len(samples) == 0:
            found = (start + len(samples)) / file.samplerate
            raise SoundError(f"{path}: truncated: sound ends after {found:.2f} s, more was expected")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise SoundError(f"{path}: holds samples that are not finite (NaN or infinite)")
    return repeat_to(torch.from_numpy(mono), frames)


def read_window(path: Path, first: int, frames: int) -> Float[Tensor, "samples"]:
    """`frames` mono samples from `first` on at the file's own rate; a file that ends within them is repeated from
    there up to the length. Raises SoundError."""
    available = min(frames, sound_info(path).frames - first)
    return repeat_to(read_samples(path, first, available), frames)


def read_wave(path: Path, sample_hz: int) -> Float[Tensor, "samples"]:
    """The whole file as a mono wave at `sample_hz`, round(seconds * sample_hz) samples. Raises SoundError."""
    return resampled(read_sound(path), sample_hz)


def read_sound(path: Path) -> Sound:
    """The whole file as a mono wave at its own rate. Raises SoundError."""
    return Sound(read_samples(path), sound_info(path).sample_hz)


def resampled(sound: Sound, sample_hz: int) -> Float[Tensor, "samples"]:
    """The wave at another rate, round(seconds * sample_hz) samples."""
    return fit_length(resample(sound.wave, sound.sample_hz, sample_hz), samples_of(sound.seconds, sample_hz))


def wave_statistics(path: Path) -> WaveStatistics:
    """Mean and deviation of the whole file, read in blocks. Raises SoundError, also where the file is silent."""
    count, total, total_of_squares = 0, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # told of below
        for block in _mono_blocks(path):
            count += len(block)
            total += float(block.sum())
            total_of_squares += float(np.square(block).sum())
    mean = total / count
    variance = max(total_of_squares - count * mean * mean, 0.0) / max(count - 1, 1)
    statistics = WaveStatistics(mean, math.sqrt(variance))
    if not math.isfinite(variance):
        raise SoundError(f"{path}: holds samples that are not finite (NaN or infinite)")
    if statistics.silent:
        raise SoundError(f"{path}: silent from beginning to end")
    return statistics


def statistics_of(wave: Float[Tensor, "samples"]) -> WaveStatistics:
    """Mean and unbiased deviation of a wave."""
    deviation = float(wave.double().std()) if wave.shape[0] > 1 else 0.0
    return WaveStatistics(float(wave.double().mean()), deviation)


def normalize(wave: Float[Tensor, "*batch samples"], statistics: WaveStatistics) -> Float[Tensor, "*batch samples"]:
    """Zero mean and unit variance by the statistics of the whole file (MERT's input; DESIGN: front ends)."""
    return (wave - statistics.mean) / math.sqrt(statistics.standard_deviation**2 + 1e-7)


def resample(wave: Float[Tensor, "*batch samples"], from_hz: int, to_hz: int) -> Float[Tensor, "*batch resampled"]:
    """Band-limited resampling by windowed sinc; the result has ceil(samples * to_hz / from_hz) samples or so."""
    if from_hz == to_hz:
        return wave
    ratio = Fraction(to_hz, from_hz)
    if max(ratio.numerator, ratio.denominator) > _LARGEST_RATIO_TERM:
        ratio = _simplified(ratio)
    return torchaudio.functional.resample(wave, ratio.denominator, ratio.numerator)


def fit_length(wave: Float[Tensor, "*batch samples"], samples: int) -> Float[Tensor, "*batch fitted"]:
    """Cuts the end off, or adds zeros there, for exactly `samples`."""
    return torch.nn.functional.pad(wave, (0, samples - wave.shape[-1]))


def repeat_to(wave: Float[Tensor, "samples"], samples: int) -> Float[Tensor, "repeated"]:
    """Repeats a wave from its beginning up to exactly `samples`, or cuts it there."""
    if wave.shape[0] >= samples:
        return wave[:samples]
    return wave.repeat(math.ceil(samples / wave.shape[0]))[:samples]


def to_int16_and_back(wave: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
    """The int16 round trip that CLAP was trained with: clamp, truncate towards zero."""
    return (wave.clamp(-1, 1) * 32767).trunc() / 32767


def write_wave(path: Path, wave: Float[Tensor, "samples"], sample_hz: int) -> None:
    """Writes 16-bit sound, by suffix (.wav or .flac); the file appears whole or not at all. Raises UserError."""
    samples = wave.detach().to("cpu", torch.float32).clamp(-1, 1).numpy()
    with appearing_whole(path) as temporary:
        try:
            soundfile.write(temporary, samples, sample_hz, subtype="PCM_16", format=path.suffix[1:].upper())
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: cannot write: {error.error_string}") from error


def _open(path: Path) -> soundfile.SoundFile:
    try:
        if path.stat().st_size == 0:
            raise SoundError(f"{path}: an empty file")
        with path.open("rb"):
            pass
        file = soundfile.SoundFile(path)
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror}") from error
    except soundfile.LibsndfileError as error:
        raise SoundError(f"{path}: not a sound file, or of a kind that cannot be decoded") from error
    except UnicodeEncodeError as error:
        raise SoundError(f"{os.fsencode(path)!r}: a file name that is not valid Unicode; rename the file") from error
    if file.frames <= 0 or not _PLAUSIBLE_HZ[0] <= file.samplerate <= _PLAUSIBLE_HZ[1]:
        file.close()
        raise SoundError(f"{path}: holds no sound ({file.frames} samples at {file.samplerate} Hz)")
    return file


def _mono_blocks(path: Path) -> Iterator[np.ndarray]:
    with _open(path) as file:
        decoded = 0
        try:
            for block in file.blocks(_BLOCK_FRAMES, dtype="float64", always_2d=True):
                decoded += len(block)
                yield block.mean(axis=1)
        except soundfile.LibsndfileError as error:
            raise SoundError(f"{path}: damaged sound: {error.error_string}") from error
        if file.frames - decoded > TOLERATED_SHORTFALL_SECONDS * file.samplerate or decoded == 0:
            raise SoundError(f"{path}: truncated: sound ends after {decoded / file.samplerate:.2f} s")


def _simplified(ratio: Fraction) -> Fraction:
    if ratio <= 1:
        return ratio.limit_denominator(_LARGEST_RATIO_TERM)
    return 1 / (1 / ratio).limit_denominator(_LARGEST_RATIO_TERM)
