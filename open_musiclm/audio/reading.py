"""Finding and reading sound files, by libsndfile."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.waves import Sound, WaveStatistics, repeat_to
from open_musiclm.errors import UserError

SOUND_EXTENSIONS = frozenset((".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".caf", ".au"))
# What a header may promise beyond the last sample before the file counts as truncated.
TOLERATED_SHORTFALL_SECONDS = 0.1
_BLOCK_FRAMES = 1 << 20
_PLAUSIBLE_HZ = (1000, 1_000_000)
_MP3 = "MP3"  # as libsndfile names the format
# An mp3 frame needs bytes of the frames before it, which libsndfile lacks right after a seek.
_MP3_LEAD_FRAMES = 1 << 13
_MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
_MP3_TAG_WITHIN = 44  # bytes from the beginning of the first frame
_ID3_HEADER_BYTES = 10


class SoundError(UserError):
    """A sound file that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class SoundInfo:
    """A sound file's length (samples per channel), rate, channels and format.

    `estimated` says that the length is libsndfile's guess, by the size of an mp3 without a length tag. libsndfile reads
    no further: of such a file with a variable bitrate the end may be lost (`ffmpeg -i a.mp3 -c copy b.mp3` adds a tag).
    """

    frames: int
    sample_hz: int
    channels: int
    format: str
    estimated: bool = False

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_hz


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


def header_info(path: Path) -> SoundInfo:
    """What the header says. Raises SoundError where the file is missing, empty or not sound."""
    with _open(path) as file:
        info = SoundInfo(file.frames, file.samplerate, file.channels, file.format)
    return replace(info, estimated=info.format == _MP3 and not _has_length_tag(path))


def sound_info(path: Path) -> SoundInfo:
    """The header, with the exact length: an mp3 without a length tag is decoded for it. Raises SoundError."""
    info = header_info(path)
    return replace(info, frames=count_frames(path), estimated=False) if info.estimated else info


def count_frames(path: Path) -> int:
    """Samples per channel that a file holds, found by decoding all of it. Raises SoundError."""
    return sum(len(block) for block in _mono_blocks(path))


def read_samples(path: Path, start: int = 0, frames: int | None = None) -> Float[Tensor, "samples"]:
    """Mono samples [start, start + frames) at the file's own rate; without `frames`, to its end.

    A seek costs the same anywhere in a file, except in an mp3, whose frames are counted from the beginning: 0.3 s for
    three hours. Raises SoundError where the file ends early, cannot be decoded or holds numbers that are not finite.
    """
    frames = sound_info(path).frames - start if frames is None else frames
    with _open(path) as file:
        first = min(start, file.frames)
        lead = min(first, _MP3_LEAD_FRAMES) if file.format == _MP3 else 0
        try:
            file.seek(first - lead)
            samples = file.read(lead + frames, dtype="float32", always_2d=True)[lead:]
        except soundfile.LibsndfileError as error:
            raise SoundError(f"{path}: damaged sound: {error.error_string}") from error
        if frames - len(samples) > TOLERATED_SHORTFALL_SECONDS * file.samplerate or len(samples) == 0:
            found = (start + len(samples)) / file.samplerate
            raise SoundError(f"{path}: truncated: sound ends after {found:.2f} s, more was expected")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise SoundError(f"{path}: holds samples that are not finite (NaN or infinite)")
    return repeat_to(torch.from_numpy(mono), frames)


def read_window(path: Path, first: int, frames: int, info: SoundInfo | None = None) -> Float[Tensor, "samples"]:
    """`frames` mono samples from `first` on at the file's own rate; a file that ends within them is repeated from
    there up to the length. `info` is the file's, where the caller has it. Raises SoundError."""
    available = min(frames, (info or sound_info(path)).frames - first)
    return repeat_to(read_samples(path, first, available), frames)


def read_sound(path: Path) -> Sound:
    """The whole file as a mono wave at its own rate. Raises SoundError."""
    info = sound_info(path)
    return Sound(read_samples(path, 0, info.frames), info.sample_hz)


def wave_statistics(path: Path) -> WaveStatistics:
    """Mean and deviation of the whole file, read in blocks. Raises SoundError, also where the file is silent."""
    count, total, total_of_squares = 0, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
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


def _mono_blocks(path: Path) -> Iterator[np.ndarray]:
    """All samples, float64, in blocks. Raises SoundError where they end before the length in the header."""
    info, decoded = header_info(path), 0
    with _open(path) as file:
        try:
            # soundfile's blocks() hides a short read
            while (block := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)).size:
                decoded += len(block)
                yield block.mean(axis=1)
        except soundfile.LibsndfileError as error:
            raise SoundError(f"{path}: damaged sound: {error.error_string}") from error
    tolerated = math.inf if info.estimated else TOLERATED_SHORTFALL_SECONDS * info.sample_hz
    if info.frames - decoded > tolerated or decoded == 0:
        raise SoundError(f"{path}: truncated: sound ends after {decoded / info.sample_hz:.2f} s")


def _has_length_tag(path: Path) -> bool:
    """Whether the first frame of an mp3, after any ID3 tags, says how long the file is. Raises SoundError."""
    try:
        with path.open("rb") as file:
            head = file.read(_ID3_HEADER_BYTES)
            while head[:3] == b"ID3" and len(head) == _ID3_HEADER_BYTES:
                size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
                footer = _ID3_HEADER_BYTES if head[5] & 0x10 else 0
                file.seek(size + footer, os.SEEK_CUR)
                head = file.read(_ID3_HEADER_BYTES)
            head += file.read(_MP3_TAG_WITHIN - len(head))
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror}") from error
    return any(tag in head for tag in _MP3_LENGTH_TAGS)


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
