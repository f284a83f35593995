"""Reading sound files: lengths, windows, and the statistics of whole files."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.errors import SoundError
from open_musiclm.audio.layout import Part
from open_musiclm.audio.opening import MP3, OpenSound, layout, opened
from open_musiclm.audio.waves import SILENCE_STANDARD_DEVIATION, Sound, WaveStatistics, repeat_to

# What a header may promise beyond the last sample before the file counts as truncated.
TOLERATED_SHORTFALL_SECONDS = 0.1
SHORTEST_SECONDS = 0.01
# Floats of music stay below; those that are scaled like integers do not.
LARGEST_PEAK = 100.0
_BLOCK_SAMPLES = 1 << 20
# An mp3 frame needs bytes of the frames before it, which libsndfile lacks right after a seek.
_MP3_LEAD_FRAMES = 1 << 13
# No encoder packs more into a byte, but for silence.
_MOST_FRAMES_PER_BYTE = 10_000
_PARTS_REMEMBERED = 1024
_CANCELLED = "its channels cancel each other, so that their mean is silent; give one of the channels alone"


@dataclass(frozen=True)
class SoundInfo:
    """A sound file's length (samples per channel), rate, channels and format.

    `estimated` says that the length is a guess, which decoding must replace: that of an mp3 without a length tag, or
    of a file whose header does not fit what follows it.
    """

    frames: int
    sample_hz: int
    channels: int
    format: str
    estimated: bool = False

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_hz


def header_info(path: Path) -> SoundInfo:
    """What the headers say. Raises SoundError where the file is missing, empty or not sound."""
    infos = [_part_info(path, part) for part in layout(path).parts]
    if len({info.sample_hz for info in infos}) > 1:
        rates = ", ".join(f"{info.sample_hz}" for info in infos[:8])
        raise SoundError(f"{path}: {len(infos)} joined files of different sample rates ({rates} Hz); split it")
    return replace(
        infos[0],
        frames=sum(info.frames for info in infos),
        channels=max(info.channels for info in infos),
        estimated=any(info.estimated for info in infos),
    )


def sound_info(path: Path) -> SoundInfo:
    """The header, with the exact length, which is counted by decoding where the header cannot say it.

    Raises SoundError, also where the file is too short.
    """
    info = header_info(path)
    info = replace(info, frames=count_frames(path), estimated=False) if info.estimated else info
    check_length(path, info)
    return info


def check_length(path: Path, info: SoundInfo) -> None:
    """Raises SoundError where a file is too short for anything."""
    if info.seconds < SHORTEST_SECONDS:
        raise SoundError(f"{path}: too short: {info.frames} samples at {info.sample_hz} Hz")


def count_frames(path: Path) -> int:
    """Samples per channel that a file holds, found by decoding all of it. Raises SoundError."""
    return sum(len(block) for block in _blocks(path))


def read_samples(path: Path, start: int = 0, frames: int | None = None) -> Float[Tensor, "samples"]:
    """Mono samples [start, start + frames) at the file's own rate; without `frames`, to its end.

    A seek costs the same anywhere in a file, except in an mp3, whose frames are counted from the beginning: 0.3 s for
    three hours. Raises SoundError where the file ends early, cannot be decoded, or holds numbers that are not finite or
    are scaled like integers.
    """
    frames = sound_info(path).frames - start if frames is None else frames
    blocks, sample_hz, left = [], 0, frames
    for part, first in _parts_from(path, start):
        with opened(path, part) as file:
            sample_hz = file.samplerate
            for block in _stretch(path, part, file, first, left):
                blocks.append(block.mean(axis=1))
                left -= len(block)
        if left <= 0:
            break
    if left > TOLERATED_SHORTFALL_SECONDS * sample_hz or left == frames:
        found = (start + frames - left) / max(sample_hz, 1)
        raise SoundError(f"{path}: truncated: sound ends after {found:.2f} s, more was expected")
    return repeat_to(torch.from_numpy(np.concatenate(blocks)), frames)


def read_window(path: Path, first: int, frames: int, info: SoundInfo | None = None) -> Float[Tensor, "samples"]:
    """`frames` mono samples from `first` on at the file's own rate; a file that ends within them is repeated from
    there up to the length. `info` is the file's, where the caller has it. Raises SoundError."""
    length = info.frames if info else sum(_part_frames(path, part) for part in layout(path).parts)
    return repeat_to(read_samples(path, first, min(frames, length - first)), frames)


def read_sound(path: Path) -> Sound:
    """The whole file as a mono wave at its own rate.

    Raises SoundError, also where the file is too short, or its channels cancel each other.
    """
    info = sound_info(path)
    sound = Sound(read_samples(path, 0, info.frames), info.sample_hz)
    if float(sound.wave.std(correction=0)) < SILENCE_STANDARD_DEVIATION and _channels_sound(path):
        raise SoundError(f"{path}: {_CANCELLED}")
    return sound


def wave_statistics(path: Path) -> WaveStatistics:
    """Mean and deviation of the whole file, read in blocks. Raises SoundError, also where the file is silent."""
    count, total, total_of_squares = 0, 0.0, 0.0
    for block in _blocks(path):
        mono = block.mean(axis=1)
        count += len(mono)
        total += float(mono.sum())
        total_of_squares += float(np.square(mono).sum())
    mean = total / count
    variance = max(total_of_squares - count * mean * mean, 0.0) / max(count - 1, 1)
    statistics = WaveStatistics(mean, math.sqrt(variance))
    if statistics.silent:
        reason = _CANCELLED if _channels_sound(path) else "silent from beginning to end"
        raise SoundError(f"{path}: {reason}")
    return statistics


def _channels_sound(path: Path) -> bool:
    """Whether any channel is not silent."""
    return any(float(block.std(axis=0).max()) >= SILENCE_STANDARD_DEVIATION for block in _blocks(path))


def _part_info(path: Path, part: Part) -> SoundInfo:
    with opened(path, part) as file:
        is_possible = file.frames <= _MOST_FRAMES_PER_BYTE * path.stat().st_size
        return SoundInfo(file.frames, file.samplerate, file.channels, file.format, part.measured or not is_possible)


def _part_frames(path: Path, part: Part) -> int:
    """The exact length of a part; one that must be counted is remembered."""
    info = _part_info(path, part)
    if not info.estimated:
        return info.frames
    return _counted_frames(path, part, path.stat().st_mtime_ns)


@lru_cache(_PARTS_REMEMBERED)
def _counted_frames(path: Path, part: Part, modified_ns: int) -> int:
    return sum(len(block) for block in _part_blocks(path, part))


def _parts_from(path: Path, start: int) -> Iterator[tuple[Part, int]]:
    """The parts that reach beyond sample `start` of the file, and the first sample of each to read."""
    parts = layout(path).parts
    for part in parts[:-1]:
        frames = _part_frames(path, part)
        if start < frames:
            yield part, start
        start = max(start - frames, 0)
    yield parts[-1], start


def _stretch(path: Path, part: Part, file: OpenSound, start: int, frames: int) -> Iterator[np.ndarray]:
    """Blocks [samples, channels] of `frames` samples from `start` on; fewer where the part ends."""
    first = min(start, file.frames)
    # In float64, libsndfile keeps what it decoded before an error.
    dtype = "float64" if part.measured else "float32"
    lead = min(first, _MP3_LEAD_FRAMES) if file.format == MP3 else 0
    try:
        if first:
            file.go_to(first - lead)
        left = lead + frames
        while left > 0 and len(block := file.block(min(left, _BLOCK_SAMPLES // file.channels), dtype)):
            block = block.astype("float32", copy=False)
            left -= len(block)
            block, lead = block[lead:], max(lead - len(block), 0)
            if len(block):
                _check_values(path, block)
                yield block
    except soundfile.LibsndfileError as error:
        if not part.measured:
            raise SoundError(f"{path}: damaged sound: {error.error_string}") from error


def _blocks(path: Path) -> Iterator[np.ndarray]:
    """All samples [samples, channels], float64, in blocks. Raises SoundError where they end before they should."""
    return chain.from_iterable(_part_blocks(path, part) for part in layout(path).parts)


def _part_blocks(path: Path, part: Part) -> Iterator[np.ndarray]:
    info, decoded = _part_info(path, part), 0
    frames = _BLOCK_SAMPLES // info.channels
    with opened(path, part) as file:
        try:
            # soundfile's blocks() hides a short read
            while len(block := file.block(frames, "float64")):
                decoded += len(block)
                _check_values(path, block)
                yield block
        except soundfile.LibsndfileError as error:
            if not info.estimated:
                raise SoundError(f"{path}: damaged sound: {error.error_string}") from error
    tolerated = math.inf if info.estimated else TOLERATED_SHORTFALL_SECONDS * info.sample_hz
    if info.frames - decoded > tolerated or decoded == 0:
        raise SoundError(f"{path}: truncated: sound ends after {decoded / info.sample_hz:.2f} s")


def _check_values(path: Path, block: np.ndarray) -> None:
    peak = float(np.maximum(block.max(), -block.min()))
    if not math.isfinite(peak):
        raise SoundError(f"{path}: holds samples that are not finite (NaN or infinite)")
    if peak > LARGEST_PEAK:
        raise SoundError(
            f"{path}: floats with a peak of {peak:,.0f}, where 1 is full scale: scaled like integers; divide them by "
            "32,768 if they were 16-bit samples"
        )
