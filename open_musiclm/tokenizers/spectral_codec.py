"""A codec of log-frequency spectrograms: its codes carry no phases, and are therefore easy to predict.

Encoder and spectrogram decoder are ConvNeXt blocks (of the vocos package, Siuzdak 2023) around the encodec package's
residual vector quantizer (Défossez et al. 2022). The spectrogram decoder only trains the codes; a Vocos turns them into
sound (`encodec_cfg.decoder`). A directory has `config.json` and `model.safetensors`.
"""

import math
from typing import Annotated, Literal

import torch
from encodec.quantization import ResidualVectorQuantizer
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from vocos.modules import ConvNeXtBlock

from open_musiclm.config.json_files import Section
from open_musiclm.tokenizers.log_frequency import LogFrequencySpectrogram, Resolution

Size = Annotated[int, Field(ge=1, le=1 << 14)]
Few = Annotated[int, Field(ge=1, le=128)]
Resolutions = Annotated[tuple[Resolution, ...], Field(min_length=1, max_length=8, strict=False)]


class SpectralArchitecture(Section):
    """The shape of a spectral codec. A code frame is `frame_length` spectrogram frames of `spectrogram_hop` samples."""

    codec: Literal["spectral"] = "spectral"
    sample_hz: Annotated[int, Field(ge=1, le=384000)] = 24000
    spectrogram_hop: Size = 240
    frame_length: Few = 4
    resolutions: Resolutions = (
        Resolution(window=4096, lowest_hz=50, highest_hz=440, bands_per_octave=24),
        Resolution(window=2048, lowest_hz=350, highest_hz=2000, bands_per_octave=24),
        Resolution(window=1024, lowest_hz=1500, highest_hz=6000, bands_per_octave=12),
        Resolution(window=512, lowest_hz=3000, highest_hz=11500, bands_per_octave=8),
    )
    dim: Size = 256
    expansion: Few = 3
    spectrogram_layers: Annotated[int, Field(ge=0, le=64)] = 1
    code_layers: Annotated[int, Field(ge=0, le=64)] = 4
    dimension: Size = 64
    n_q: Few = 6
    bins: Annotated[int, Field(ge=2, le=1 << 16)] = 1024

    @model_validator(mode="after")
    def _whole_frames(self) -> "SpectralArchitecture":
        if self.sample_hz % self.hop:
            raise ValueError(f"sample_hz {self.sample_hz} must be a multiple of a code frame, {self.hop} samples")
        for resolution in self.resolutions:
            if resolution.highest_hz * 2 > self.sample_hz:
                raise ValueError(f"highest_hz {resolution.highest_hz} is above half of sample_hz {self.sample_hz}")
        return self

    @property
    def hop(self) -> int:
        """Samples per code frame."""
        return self.spectrogram_hop * self.frame_length

    def bandwidth_of(self, quantizers: int) -> float:
        """kbps of the first `quantizers` codebooks."""
        return quantizers * math.log2(self.bins) * (self.sample_hz // self.hop) / 1000


class SpectralModel(nn.Module):
    """Wave to latents, latents to the spectrogram; the quantizer in between is used by the caller."""

    def __init__(self, architecture: SpectralArchitecture) -> None:
        super().__init__()
        self.hop = architecture.hop
        self.frame_length = architecture.frame_length
        self.spectrogram = LogFrequencySpectrogram(
            architecture.sample_hz, architecture.spectrogram_hop, architecture.resolutions
        )
        dim, bands, frame = architecture.dim, self.spectrogram.bands, architecture.frame_length
        self.encoder = nn.Sequential(
            _Scaled(),
            nn.Conv1d(bands, dim, 7, padding=3),
            _blocks(architecture, architecture.spectrogram_layers),
            nn.Conv1d(dim, dim, frame, stride=frame),
            _blocks(architecture, architecture.code_layers),
            _ChannelNorm(dim),
            nn.Conv1d(dim, architecture.dimension, 1),
        )
        self.quantizer = ResidualVectorQuantizer(architecture.dimension, architecture.n_q, architecture.bins)
        self.decoder = nn.Sequential(
            nn.Conv1d(architecture.dimension, dim, 3, padding=1),
            _blocks(architecture, architecture.code_layers),
            nn.ConvTranspose1d(dim, dim, frame, stride=frame),
            _blocks(architecture, architecture.spectrogram_layers),
            _ChannelNorm(dim),
            nn.Conv1d(dim, bands, 1),
        )

    def encode(
        self, waves: Float[Tensor, "batch samples"]
    ) -> tuple[Float[Tensor, "batch bands spectrogram_time"], Float[Tensor, "batch dim time"]]:
        """The spectrogram, and the latents of its code frames, of which the last may be begun only."""
        frames = -(-waves.shape[1] // self.hop)
        with torch.no_grad():
            spectrogram = self.spectrogram(waves.float(), frames * self.frame_length)
        return spectrogram, self.encoder(spectrogram)


class _Scaled(nn.Module):
    """Spectrogram values from 0 to 9 to near unit scale."""

    def forward(self, spectrogram: Float[Tensor, "batch bands time"]) -> Float[Tensor, "batch bands time"]:
        return (spectrogram - 2) / 2


class _ChannelNorm(nn.Module):
    """LayerNorm over channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Float[Tensor, "batch dim time"]) -> Float[Tensor, "batch dim time"]:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def _blocks(architecture: SpectralArchitecture, layers: int) -> nn.Sequential:
    dim = architecture.dim
    return nn.Sequential(*(ConvNeXtBlock(dim, dim * architecture.expansion, 1 / layers) for _ in range(layers)))
