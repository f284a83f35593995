"""The only code that opens sound files: find, inspect, read a crop, resample, write.

Waves are mono float32 tensors [samples]; times are seconds, rates Hz. Sample counts are rounded and made
exact: 2.3 s at 24 kHz is 55,200 samples.
"""

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.mp3_frames import FrameIndex, index_frames
from open_musiclm.errors import UserError
from open_musiclm.files import appearing_whole

SOUND_EXTENSIONS = frozenset((".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".caf", ".au"))
# What a header may promise beyond the last sample before the file counts as truncated (mp3 headers are loose).
TOLERATED_SHORTFALL_SECONDS = 0.1
SILENCE_STANDARD_DEVIATION = 1e-5
MP3 = "MP3"  # as libsndfile names the format
_BLOCK_FRAMES = 1 << 20
# An mp3's frame index is tried on so many samples of its beginning and end; decoding in another order rounds otherwise.
_TRIED_SAMPLES = 1 << 14
_ROUNDING = 1e-5
_SETTLING_SAMPLES = 1 << 17  # after a seek, libsndfile's first frames are wrong where the bitrate is low
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
    """What the header of a sound file says; of an mp3 perhaps also where its frames lie."""

    frames: int
    sample_hz: int
    channels: int
    format: str
    frame_index: FrameIndex | None = None

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


def indexed(info: SoundInfo, frame_index: FrameIndex | None) -> SoundInfo:
    """The same with the frames of an mp3 found: its exact length, which a header without a tag only estimates."""
    return info if frame_index is None else replace(info, frames=frame_index.samples, frame_index=frame_index)


def found_sound_info(path: Path) -> SoundInfo:
    """The header, and the frames of an mp3, found by walking through it. Raises SoundError."""
    info = sound_info(path)
    return indexed(info, find_frames(path)) if info.format == MP3 else info


def find_frames(path: Path) -> FrameIndex | None:
    """Walks through an mp3 once, half a second for three hours; None where it is not one plain chain of frames, or
    where samples found by the index are not those that libsndfile decodes. Raises SoundError."""
    with _open(path) as file:
        try:
            index = index_frames(path.read_bytes(), file.frames)
            if index is None:
                return None
            length = min(index.samples, file.frames)
            tried = min(_TRIED_SAMPLES, length)
            for start in (0, length - tried):
                file.seek(max(start - _SETTLING_SAMPLES, 0))
                decoded = file.read(min(start, _SETTLING_SAMPLES) + tried, dtype="float32", always_2d=True)[-tried:]
                found = _read_excerpt(path, index, start, len(decoded))
                if found is None or found.shape != decoded.shape or np.abs(found - decoded).max(initial=0) > _ROUNDING:
                    return None
        except soundfile.LibsndfileError:
            return None
        except OSError as error:
            raise SoundError(f"{path}: cannot read: {error.strerror}") from error
    return index


def read_samples(
    path: Path, start: int = 0, frames: int | None = None, info: SoundInfo | None = None
) -> Float[Tensor, "samples"]:
    """Mono samples [start, start + frames) at the file's own rate; without `frames`, to its end.

    A seek costs the same anywhere in a file, except in an mp3, whose frames are counted from the beginning: 0.3 s for
    three hours, unless `info` has its frame index. Raises SoundError where the file ends early, cannot be decoded or
    holds numbers that are not finite.
    """
    info = info or sound_info(path)
    frames = info.frames - start if frames is None else frames
    samples = _read_excerpt(path, info.frame_index, start, min(frames, info.frames - start))
    if samples is None:
        samples = _read_after_seek(path, start, frames)
    if frames - len(samples) > TOLERATED_SHORTFALL_SECONDS * info.sample_hz or len(samples) == 0:
        found = (start + len(samples)) / info.sample_hz
        raise SoundError(f"{path}: truncated: sound ends after {found:.2f} s, more was expected")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise SoundError(f"{path}: holds samples that are not finite (NaN or infinite)")
    return repeat_to(torch.from_numpy(mono), frames)


def read_window(path: Path, first: int, frames: int, info: SoundInfo | None = None) -> Float[Tensor, "samples"]:
    """`frames` mono samples from `first` on at the file's own rate; a file that ends within them is repeated from
    there up to the length. Raises SoundError."""
    info = info or sound_info(path)
    available = min(frames, info.frames - first)
    return repeat_to(read_samples(path, first, available, info), frames)


def read_wave(path: Path, sample_hz: int) -> Float[Tensor, "samples"]:
    """The whole file as a mono wave at `sample_hz`, round(seconds * sample_hz) samples. Raises SoundError."""
    return resampled(read_sound(path), sample_hz)


def read_sound(path: Path) -> Sound:
    """The whole file as a mono wave at its own rate. Raises SoundError."""
    info = found_sound_info(path)
    return Sound(read_samples(path, info=info), info.sample_hz)


def resampled(sound: Sound, sample_hz: int) -> Float[Tensor, "samples"]:
    """The wave at another rate, round(seconds * sample_hz) samples."""
    return fit_length(resample(sound.wave, sound.sample_hz, sample_hz), samples_of(sound.seconds, sample_hz))


def wave_statistics(path: Path, info: SoundInfo | None = None) -> WaveStatistics:
    """Mean and deviation of the whole file, read in blocks. Raises SoundError, also where the file is silent."""
    count, total, total_of_squares = 0, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # told of below
        for block in _mono_blocks(path, info or found_sound_info(path)):
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


def _read_after_seek(path: Path, start: int, frames: int) -> np.ndarray:
    with _open(path) as file:
        try:
            file.seek(min(start, file.frames))
            return file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise SoundError(f"{path}: damaged sound: {error.error_string}") from error


def _read_excerpt(path: Path, index: FrameIndex | None, start: int, frames: int) -> np.ndarray | None:
    """Samples [frames, channels] of an mp3 by its index; None where that is not possible."""
    if index is None or start < 0 or frames <= 0:
        return None
    try:
        excerpt = index.excerpt(path, start, frames)
        if excerpt is None:
            return None
        content, before = excerpt
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            samples = file.read(before + frames, dtype="float32", always_2d=True)[before:]
    except (OSError, soundfile.LibsndfileError):
        return None
    return samples if len(samples) == frames else None


def _mono_blocks(path: Path, info: SoundInfo) -> Iterator[np.ndarray]:
    with _open(path) as file:
        if info.frames != file.frames:  # an mp3 without a tag, of which libsndfile estimates the length
            for start in range(0, info.frames, _BLOCK_FRAMES):
                yield read_samples(path, start, min(_BLOCK_FRAMES, info.frames - start), info).double().numpy()
            return
        decoded = 0
        try:
            # soundfile's blocks() hides a short read
            while (block := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)).size:
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
