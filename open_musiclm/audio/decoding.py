"""Decoding one part of a sound file: all of it in blocks, or a segment."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from open_musiclm.audio.info import part_info
from open_musiclm.audio.layout import Part
from open_musiclm.audio.opening import MP3, OGG, OpenSound, opened
from open_musiclm.errors import SoundError

# How much longer a header may claim a file to be before the file counts as truncated.
TOLERATED_SHORTFALL_SECONDS = 0.1
# Floats of music stay below; those that are scaled like integers do not.
LARGEST_PEAK = 100.0
_BLOCK_SAMPLES = 1 << 20
# An mp3 frame needs bytes of the frames before it, which libsndfile lacks right after a seek.
_MP3_LEAD_FRAMES = 1 << 13
# In the last page of an Ogg stream, which ends in the middle of a block, libsndfile's seek is off by some samples.
_OGG_LAST_PAGE_SECONDS = 2.0


def part_blocks(path: Path, part: Part) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """All samples of a part, float64, in blocks. Raises SoundError if they end before they should."""
    info, decoded = part_info(path, part), 0
    with opened(path, part) as file:
        try:
            # soundfile's blocks() hides a short read
            while len(block := file.block(_BLOCK_SAMPLES // info.channels, "float64")):
                decoded += len(block)
                yield block
        except soundfile.LibsndfileError as error:
            if not info.estimated:
                raise _damaged(path, error) from error
    tolerated = math.inf if info.estimated else TOLERATED_SHORTFALL_SECONDS * info.sample_hz
    if info.frames - decoded > tolerated or decoded == 0:
        raise SoundError(f"{path}: truncated: sound ends after {decoded / info.sample_hz:.2f} s")


def segment(path: Path, part: Part, first: int, frames: int) -> tuple[Float[np.ndarray, "samples"], int]:
    """Mono samples [first, first + frames) of a part, fewer where it ends, and their rate. Raises SoundError.

    If the seek fails, the part is decoded from its start.
    """
    for seeks in (True, False) if first else (False,):
        blocks: list[np.ndarray] = []
        with opened(path, part) as file:
            missing = frames - TOLERATED_SHORTFALL_SECONDS * file.samplerate
            try:
                for block in _from(file, first, frames, seeks):
                    blocks.append(mono(path, block).astype("float32", copy=False))
                    missing -= len(block)
            except soundfile.LibsndfileError as error:
                if not seeks and not part.measured:
                    raise _damaged(path, error) from error
            if blocks and missing <= 0:
                break
    return np.concatenate([np.zeros(0, "float32"), *blocks]), file.samplerate


def _from(file: OpenSound, first: int, frames: int, seeks: bool) -> Iterator[np.ndarray]:
    """Blocks [samples, channels] of `frames` samples from `first` on, after a seek or from the beginning."""
    # Of an mp3 libsndfile keeps what it decoded before an error only in float64.
    lead, dtype = first, "float64" if file.format == MP3 else "float32"
    if seeks:
        first = min(first, file.frames)
        lead = min(first, _lead(file, first))
        if file.format == OGG:
            # libsndfile crashes where it seeks in a stream whose codebooks are damaged
            if not len(file.block(1)):
                return
            file.go_to(0)
        file.go_to(first - lead)
    left = lead + frames
    while left > 0 and len(block := file.block(min(left, _BLOCK_SAMPLES // file.channels), dtype)):
        left -= len(block)
        block, lead = block[lead:], max(lead - len(block), 0)
        if len(block):
            yield block


def _lead(file: OpenSound, first: int) -> int:
    """How many samples before `first` a seek must go, so that decoding is right from `first` on."""
    if file.format == MP3:
        return _MP3_LEAD_FRAMES
    last_page = round(_OGG_LAST_PAGE_SECONDS * file.samplerate)
    return last_page if file.format == OGG and file.frames - first < last_page else 0


def mono(path: Path, block: Float[np.ndarray, "samples channels"]) -> Float[np.ndarray, "samples"]:
    """The mean of the channels. Raises SoundError if samples are not finite, or scaled like integers."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = block.mean(axis=1)
    peak = float(np.maximum(mean.max(), -mean.min()))
    if not math.isfinite(peak):
        raise SoundError(f"{path}: holds samples that are not finite (NaN or infinite)")
    if peak > LARGEST_PEAK:
        raise SoundError(
            f"{path}: floats with a peak of {peak:,.0f}, where 1 is full scale: scaled like integers; divide them by "
            "32,768 if they were 16-bit samples"
        )
    return mean


def _damaged(path: Path, error: soundfile.LibsndfileError) -> SoundError:
    return SoundError(f"{path}: damaged sound: {error.error_string}")
