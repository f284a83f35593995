"""Replaces a segment of a sound; all other samples stay unchanged, bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from open_musiclm.audio.info import header_info
from open_musiclm.audio.reading import uniform_blocks_of
from open_musiclm.audio.writing import write_exactly

CROSSFADE_SECONDS = 0.02
_LARGEST_FADE_SHARE = 0.25  # of a short segment, at each end


@dataclass(frozen=True)
class Patch:
    """New samples that replace those from `first` on; at the ends `weight` is below 1, and both are mixed."""

    first: int
    wave: Float[np.ndarray, "samples"]
    weight: Float[np.ndarray, "samples"]

    @property
    def end(self) -> int:
        """The first sample after the patch."""
        return self.first + len(self.wave)

    def onto(self, block: Float[np.ndarray, "samples channels"], first: int) -> Float[np.ndarray, "samples channels"]:
        """A block of the sound, which begins with its sample `first`, with what the patch replaces of it."""
        start, end = max(self.first, first), min(self.end, first + len(block))
        if start >= end:
            return block
        inside, own = slice(start - first, end - first), slice(start - self.first, end - self.first)
        weight, new = (values[own, None].astype(block.dtype) for values in (self.weight, self.wave))
        patched = block.copy()
        patched[inside] = (1 - weight) * block[inside] + weight * new
        return patched


def crossfaded(wave: Float[np.ndarray, "samples"], first: int, sound_samples: int, sample_hz: int) -> Patch:
    """A patch with linear fades inside its own segment, from the sound before it and to the sound after it.

    There is no fade at the start or end of the sound. A linear fade is never louder than the louder of both.
    """
    fade = round(min(CROSSFADE_SECONDS * sample_hz, _LARGEST_FADE_SHARE * len(wave)))
    rise = np.arange(fade) / max(fade, 1)
    weight = np.ones(len(wave))
    if first > 0:
        weight[:fade] = rise
    if first + len(wave) < sound_samples:
        weight[len(wave) - fade :] = rise[::-1]
    return Patch(first, wave, weight)


def write_patched(path: Path, source: Path, patch: Patch) -> None:
    """Writes a sound file with the patch in all its channels, as a wav that holds every sample of `source` exactly.

    Not atomic. Raises SoundError, OSError.
    """
    write_exactly(path, _patched(source, patch), header_info(source))


def _patched(source: Path, patch: Patch) -> Iterator[Float[np.ndarray, "samples channels"]]:
    first = 0
    for block in uniform_blocks_of(source):
        yield patch.onto(block, first)
        first += len(block)
