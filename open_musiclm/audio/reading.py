"""Reading sound files: lengths, windows, whole files, and statistics of whole files."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.decoding import TOLERATED_SHORTFALL_SECONDS, mono, part_blocks, segment
from open_musiclm.audio.info import SoundInfo, check_length, header_info, part_info
from open_musiclm.audio.layout import Part
from open_musiclm.audio.opening import layout
from open_musiclm.audio.waves import SILENCE_STANDARD_DEVIATION, FileSound, WaveStatistics, repeat_to, samples_of
from open_musiclm.errors import SoundError

_PARTS_REMEMBERED = 1024
_CANCELLED = "its channels cancel each other, so that their mean is silent; use a single channel"


def sound_info(path: Path) -> SoundInfo:
    """The header, with the exact length; it is counted by decoding if the header does not have it.

    Raises SoundError, also if the file is too short.
    """
    info = header_info(path)
    info = replace(info, frames=count_frames(path), estimated=False) if info.estimated else info
    check_length(path, info)
    return info


def count_frames(path: Path) -> int:
    """Samples per channel that a file holds, found by decoding all of it. Raises SoundError."""
    return sum(len(block) for block in blocks_of(path))


def is_longer(path: Path, seconds: float) -> bool:
    """Whether a sound file is longer than `seconds`; decodes at most so much if its header does not say.

    Raises SoundError.
    """
    info, frames = header_info(path), 0
    most = seconds * info.sample_hz
    if not info.estimated:
        return info.frames > most
    for block in blocks_of(path):
        frames += len(block)
        if frames > most:
            return True
    return False


def read_samples(path: Path, start: int = 0, frames: int | None = None) -> Float[Tensor, "samples"]:
    """Mono samples [start, start + frames) at the file's own rate; without `frames`, to its end.

    A seek costs the same anywhere in a file, except in an mp3, whose frames are counted from the beginning: 0.3 s for
    three hours. Raises SoundError if the file ends early, cannot be decoded, or holds numbers that are not finite or
    are scaled like integers.
    """
    frames = sound_info(path).frames - start if frames is None else frames
    segments, sample_hz, left = [], 0, frames
    for part, first in _parts_from(path, start):
        samples, sample_hz = segment(path, part, first, left)
        segments.append(samples)
        left -= len(samples)
        if left <= 0:
            break
    # each of joined files may lack as much
    if left > len(segments) * TOLERATED_SHORTFALL_SECONDS * sample_hz or left == frames:
        found = (start + frames - left) / sample_hz
        raise SoundError(f"{path}: truncated: sound ends after {found:.2f} s, more was expected")
    return repeat_to(torch.from_numpy(np.concatenate(segments)), frames)


def read_window(path: Path, first: int, frames: int, info: SoundInfo | None = None) -> Float[Tensor, "samples"]:
    """`frames` mono samples from `first` on at the file's own rate; a file that ends within them is repeated from
    there up to the length. `info` is the file's, where the caller has it. Raises SoundError."""
    length = info.frames if info else sum(_part_frames(path, part) for part in layout(path).parts)
    return repeat_to(read_samples(path, first, min(frames, length - first)), frames)


def read_channels(path: Path, start: int, frames: int) -> Float[Tensor, "channels samples"]:
    """Samples [start, start + frames) of every channel at the file's own rate, fewer where it ends.

    The file is decoded from its beginning. Raises SoundError.
    """
    found, first = [torch.zeros(header_info(path).channels, 0)], 0
    for block in uniform_blocks_of(path):
        inside = block[max(start - first, 0) : max(start + frames - first, 0)]
        found.append(torch.from_numpy(inside.T.astype(np.float32)))
        first += len(block)
        if first >= start + frames:
            break
    return torch.cat(found, dim=1)


def read_sound(path: Path | str, seconds: float | None = None) -> FileSound:
    """The whole file, or its first `seconds`, as a mono wave at its own rate.

    Raises SoundError, also if the file is too short, or its channels cancel each other.
    """
    path = Path(path)
    info = sound_info(path)
    frames = info.frames if seconds is None else min(samples_of(seconds, info.sample_hz), info.frames)
    sound = FileSound(read_samples(path, 0, frames), info.sample_hz, path)
    if float(sound.wave.std(correction=0)) < SILENCE_STANDARD_DEVIATION and _channels_sound(path):
        raise SoundError(f"{path}: {_CANCELLED}")
    return sound


def wave_statistics(path: Path) -> WaveStatistics:
    """Mean and deviation of the whole file, read in blocks. Raises SoundError, also if the file is silent."""
    count, total, total_of_squares = 0, 0.0, 0.0
    for block in blocks_of(path):
        samples = mono(path, block)
        count += len(samples)
        total += float(samples.sum())
        total_of_squares += float(np.square(samples).sum())
    mean = total / count
    variance = max(total_of_squares - count * mean * mean, 0.0) / max(count - 1, 1)
    statistics = WaveStatistics(mean, math.sqrt(variance))
    if statistics.silent:
        reason = _CANCELLED if _channels_sound(path) else "silent from beginning to end"
        raise SoundError(f"{path}: {reason}")
    return statistics


def blocks_of(path: Path) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """All samples of a file, float64, in blocks. Raises SoundError if they end before they should."""
    return chain.from_iterable(part_blocks(path, part) for part in layout(path).parts)


def uniform_blocks_of(path: Path) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """As `blocks_of`, with the channels of the header: of joined files some may be mono, which is then in each."""
    channels = header_info(path).channels
    for block in blocks_of(path):
        if block.shape[1] == channels:
            yield block
        else:
            yield np.repeat(block.mean(axis=1, keepdims=True), channels, axis=1)


def _channels_sound(path: Path) -> bool:
    """Whether any channel is not silent."""
    return any(float(block.std(axis=0).max()) >= SILENCE_STANDARD_DEVIATION for block in blocks_of(path))


def _parts_from(path: Path, start: int) -> Iterator[tuple[Part, int]]:
    """The parts that reach beyond sample `start` of the file, and the first sample of each to read."""
    parts = layout(path).parts
    for part in parts[:-1]:
        frames = _part_frames(path, part)
        if start < frames:
            yield part, start
        start = max(start - frames, 0)
    yield parts[-1], start


def _part_frames(path: Path, part: Part) -> int:
    """The exact length of a part; a counted length is cached."""
    info = part_info(path, part)
    if not info.estimated:
        return info.frames
    return _counted_frames(path, part, path.stat().st_mtime_ns)


@lru_cache(_PARTS_REMEMBERED)
def _counted_frames(path: Path, part: Part, modified_ns: int) -> int:
    return sum(len(block) for block in part_blocks(path, part))
