"""One file of music: its segments without silence, and its clips."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import (
    SoundError,
    SoundInfo,
    fit_length,
    levels_of,
    read_samples,
    resample,
    samples_of,
    sound_info,
    write_wave,
)
from open_musiclm.data.failures import as_sound_error
from open_musiclm.data.prepare.audio_fingerprints import (
    FINGERPRINT_HZ,
    FINGERPRINT_SECONDS,
    AudioFingerprint,
    fingerprint_of,
)
from open_musiclm.errors import UserError
from open_musiclm.files import temporary_path

SILENCE_DB = -60.0
_BLOCK_SECONDS = 0.1
_LONGEST_GAP_SECONDS = 2.0
_SHORTEST_SECONDS = 2.0
_READ_SECONDS = 60  # at once: a recording of hours is never in memory as a whole


@dataclass(frozen=True)
class ClipOptions:
    """How clips are cut: the rate, the longest length in seconds, and the loudness in LUFS, None to leave it.

    Raises UserError if they would be shorter than two seconds.
    """

    sample_hz: int
    seconds: float
    loudness: float | None

    def __post_init__(self) -> None:
        if self.seconds < _SHORTEST_SECONDS:
            raise UserError(f"--seconds {self.seconds:g}: too short for a clip; give at least {_SHORTEST_SECONDS:g}")


@dataclass(frozen=True)
class Source:
    """The contents of a file: segments of sound, in samples at its own rate, its gain, and its fingerprint.

    `problem` is the reason if it cannot be used.
    """

    path: Path
    sample_hz: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    gain: float = 1.0
    audio_fingerprint: AudioFingerprint | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Clip:
    """A written clip: its file below the output folder, and where it was in its source."""

    file: str
    start_seconds: float
    seconds: float


def examine(path: Path, options: ClipOptions) -> Source:
    """Decodes a file once."""
    try:
        with as_sound_error(path):
            info = sound_info(path)
            segments = _segments(path, info, options.seconds)
            if not segments:
                return Source(path, problem=f"{path}: it has no two seconds above {SILENCE_DB:g} dB")
            gain = 1.0
            if options.loudness is not None:
                gain = levels_of(_waves(path, info), info.sample_hz).gain_to(options.loudness)
            return Source(path, info.sample_hz, segments, gain, _fingerprint(path, info, segments[0][0]))
    except SoundError as error:
        return Source(path, problem=str(error))


def write_clips(source: Source, names: Sequence[str], folder: Path, options: ClipOptions) -> list[Clip]:
    """Writes a source's segments as files of these names below `folder`; an existing file must be equal.

    Raises UserError if it is not, or if writing fails.
    """
    clips = []
    for name, (first, frames) in zip(names, source.segments, strict=True):
        wave = resample(read_samples(source.path, first, frames), source.sample_hz, options.sample_hz)
        seconds = frames / source.sample_hz
        wave = fit_length(wave, samples_of(seconds, options.sample_hz)) * source.gain
        _write(folder / name, wave.clamp(-1, 1), options.sample_hz)
        clips.append(Clip(name, round(first / source.sample_hz, 3), round(seconds, 3)))
    return clips


def _write(path: Path, wave: Float[Tensor, "samples"], sample_hz: int) -> None:
    if not path.exists():
        write_wave(path, wave, sample_hz)
        return
    again = temporary_path(path)
    try:
        write_wave(again, wave, sample_hz)
        if again.read_bytes() != path.read_bytes():
            raise UserError(f"{path}: already exists with another sound; nothing is overwritten: move it away")
    finally:
        again.unlink(missing_ok=True)


def _segments(path: Path, info: SoundInfo, longest: float) -> tuple[tuple[int, int], ...]:
    """First sample and length of each clip: sound between silences, in equal parts of at most `longest` seconds.

    None is shorter than two seconds: where equal parts would be, the end is left out.
    """
    step = round(_BLOCK_SECONDS * info.sample_hz)
    loud = np.flatnonzero(np.concatenate([_levels(wave, step) for wave in _waves(path, info)]) > SILENCE_DB)
    if not len(loud):
        return ()
    breaks = np.flatnonzero(np.diff(loud) * _BLOCK_SECONDS > _LONGEST_GAP_SECONDS)
    begins, ends = loud[[0, *(breaks + 1)]] * step, (loud[[*breaks, -1]] + 1) * step
    result: list[tuple[int, int]] = []
    for begin, end in zip(begins.tolist(), np.minimum(ends, info.frames).tolist(), strict=True):
        seconds = (end - begin) / info.sample_hz
        if seconds < _SHORTEST_SECONDS:
            continue
        parts = min(math.ceil(seconds / longest - 1e-9), math.floor(seconds / _SHORTEST_SECONDS))
        length = min((end - begin) // parts, samples_of(longest, info.sample_hz))
        result += [(begin + part * length, length) for part in range(parts)]
    return tuple(result)


def _waves(path: Path, info: SoundInfo) -> Iterator[Float[Tensor, "_"]]:
    """The whole file, part by part; each but the last is a whole number of blocks."""
    at_once = _READ_SECONDS * round(_BLOCK_SECONDS * info.sample_hz) * round(1 / _BLOCK_SECONDS)
    return (read_samples(path, first, min(at_once, info.frames - first)) for first in range(0, info.frames, at_once))


def _levels(wave: Float[Tensor, "_"], step: int) -> Float[np.ndarray, "blocks"]:
    """The level of every block in dB of full scale."""
    blocks = torch.nn.functional.pad(wave, (0, -len(wave) % step)).unflatten(0, (-1, step))
    return (10 * blocks.double().square().mean(dim=1).clamp(min=1e-12).log10()).numpy()


def _fingerprint(path: Path, info: SoundInfo, first: int) -> AudioFingerprint:
    frames = min(round(FINGERPRINT_SECONDS * info.sample_hz), info.frames - first)
    return fingerprint_of(resample(read_samples(path, first, frames), info.sample_hz, FINGERPRINT_HZ))
