"""Pictures of sound: a spectrogram with a logarithmic pitch axis, as PNG."""

import io
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from open_musiclm.audio.pitch_bands import pitch_bands
from open_musiclm.files import atomic_write

_WINDOW, _HOP = 2048, 256
_BANDS = 240
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 11000.0
_RANGE_DB = 70.0
_COLOURS = ("#0b0b1e", "#b5367a", "#fcfdbf")  # of the faintest, the middle and the loudest


def write_spectrogram(path: Path, wave: Float[Tensor, "samples"], sample_hz: int) -> None:
    """Writes a PNG: a column for every 256 samples, lines of equal musical steps from 50 Hz to 11 kHz.

    The faintest colour is 70 dB below the loudest. Raises UserError if writing fails.
    """
    levels = spectrogram_levels(wave, sample_hz)
    grey = Image.fromarray((255 * levels.flip(0)).round().to(torch.uint8).numpy())
    buffer = io.BytesIO()
    ImageOps.colorize(grey, black=_COLOURS[0], mid=_COLOURS[1], white=_COLOURS[2]).save(buffer, "PNG")
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def spectrogram_levels(wave: Float[Tensor, "samples"], sample_hz: int) -> Float[Tensor, "bands time"]:
    """Levels from 0 (70 dB below the loudest, or less) to 1, the lowest pitch first; silence is 0 everywhere."""
    highest = min(_HIGHEST_HZ, sample_hz / 2)
    decibels = pitch_bands(wave, sample_hz, _WINDOW, _HOP, _BANDS, _LOWEST_HZ, highest)
    if not wave.any():
        return torch.zeros_like(decibels)
    return ((decibels - decibels.max()) / _RANGE_DB + 1).clamp(min=0)
