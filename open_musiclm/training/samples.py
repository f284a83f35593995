"""Waves of a validation batch as files, to listen to."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import write_wave

SAMPLES_WRITTEN = 4


def write_waves(folder: Path, waves: Mapping[str, Iterable[Float[Tensor, "samples"]]], sample_hz: int) -> list[Path]:
    """Writes the waves of each kind as NUMBER_KIND.wav; returns their paths."""
    paths = []
    for kind, some in waves.items():
        for number, wave in enumerate(some):
            paths.append(folder / f"{number}_{kind}.wav")
            write_wave(paths[-1], wave, sample_hz)
    return paths
