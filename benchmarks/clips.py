"""Clips to measure codecs with."""

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from open_musiclm import audio


def beginnings(
    folder: Path, sample_hz: int, seconds: float, most: int, shorter: bool = False
) -> Iterator[Float[Tensor, "1 samples"]]:
    """The first `seconds` of the first `most` sound files of a folder, at `sample_hz`.

    Files that are shorter are left out, or, with `shorter`, given as they are.
    """
    length, found = audio.samples_of(seconds, sample_hz), 0
    for path in sorted(audio.find_sounds(folder)):
        if found == most:
            return
        wave = audio.resampled(audio.read_sound(path), sample_hz)
        if len(wave) >= length or shorter:
            found += 1
            yield wave[None, :length]
