"""Log-frequency spectrograms of several window lengths, concatenated: the input of a spectral codec.

Long windows separate the partials of low notes, short ones show when a note begins (as the resolutions of a constant-Q
transform do, Brown 1991). Phases are left out.
"""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from open_musiclm.config.json_files import Section

_QUIETEST = 1e-4  # of a full-scale sine's amplitude: -80 dB
_MOST_BANDS = 2048
Hz = Annotated[float, Field(gt=0, le=384000)]


class Resolution(Section):
    """One window length and the bands that are seen through it."""

    window: Annotated[int, Field(ge=32, le=1 << 16)]
    lowest_hz: Hz
    highest_hz: Hz
    bands_per_octave: Annotated[int, Field(ge=1, le=96)]

    @model_validator(mode="after")
    def _rising(self) -> "Resolution":
        if self.lowest_hz >= self.highest_hz:
            raise ValueError(f"lowest_hz {self.lowest_hz} must be below highest_hz {self.highest_hz}")
        if self.bands > _MOST_BANDS:
            raise ValueError(f"{self.bands} bands, at most {_MOST_BANDS} are possible")
        return self

    @property
    def bands(self) -> int:
        """How many bands there are, one at `lowest_hz`."""
        return 1 + math.floor(self.bands_per_octave * math.log2(self.highest_hz / self.lowest_hz) + 1e-9)

    def centres(self) -> Float[Tensor, "bands"]:
        """The bands' frequencies in Hz."""
        octaves = torch.arange(self.bands, dtype=torch.float64) / self.bands_per_octave
        return self.lowest_hz * 2**octaves


class LogFrequencySpectrogram(nn.Module):
    """Logarithms of band magnitudes, all resolutions of a frame in one vector; silence is 0, a full-scale sine 9.2."""

    def __init__(self, sample_hz: int, hop: int, resolutions: tuple[Resolution, ...]) -> None:
        super().__init__()
        self.hop = hop
        self.windows = tuple(resolution.window for resolution in resolutions)
        self.bands = sum(resolution.bands for resolution in resolutions)
        for index, resolution in enumerate(resolutions):
            hann = torch.hann_window(resolution.window)
            self.register_buffer(f"hann{index}", 2 * hann / hann.sum(), persistent=False)
            self.register_buffer(f"bank{index}", _bank(resolution, sample_hz), persistent=False)

    def forward(self, waves: Float[Tensor, "batch samples"], frames: int) -> Float[Tensor, "batch bands time"]:
        """`frames` frames; frame t is centred on sample (t + 1/2) * hop, with zeros around the wave."""
        parts = []
        for index, window in enumerate(self.windows):
            before = (window - self.hop) // 2
            after = max((frames - 1) * self.hop + window - before - waves.shape[1], 0)
            padded = nn.functional.pad(waves, (before, after) if before > 0 else (0, after))[:, max(-before, 0) :]
            spectrum = torch.fft.rfft(padded.unfold(1, window, self.hop)[:, :frames] * getattr(self, f"hann{index}"))
            parts.append(spectrum.abs() @ getattr(self, f"bank{index}"))
        return (torch.cat(parts, dim=-1) / _QUIETEST).log1p().transpose(1, 2)


def _bank(resolution: Resolution, sample_hz: int) -> Float[Tensor, "bins bands"]:
    """Triangles over the logarithm of frequency, at least as wide as a bin on each side; each sums to 1."""
    centres, step = resolution.centres(), 2 ** (1 / resolution.bands_per_octave)
    bins = torch.arange(resolution.window // 2 + 1, dtype=torch.float64) * sample_hz / resolution.window
    bin_hz = sample_hz / resolution.window
    below = (centres - centres / step).clamp(min=bin_hz)
    above = (centres * step - centres).clamp(min=bin_hz)
    distance = bins[:, None] - centres[None]
    triangles = (1 - torch.where(distance < 0, -distance / below, distance / above)).clamp(min=0)
    return (triangles / triangles.sum(0, keepdim=True).clamp(min=1e-9)).float()
