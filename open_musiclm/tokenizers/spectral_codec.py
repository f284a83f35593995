"""A codec of log-frequency spectrograms: its codes carry no phases, and are therefore easy to predict.

Encoder and spectrogram decoder are ConvNeXt blocks (of the vocos package, Siuzdak 2023) around the encodec package's
residual vector quantizer (Défossez et al. 2022). The spectrogram decoder only trains the codes; a Vocos turns them into
sound (`encodec_cfg.decoder`). A directory has `config.json` and `model.safetensors`.
"""

import math
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import torch
from encodec.quantization import ResidualVectorQuantizer
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from open_musiclm.config.json_files import Section
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec_model import CodecModel
from open_musiclm.tokenizers.log_frequency import LogFrequencySpectrogram, Resolution
from open_musiclm.tokenizers.own_directory import load_model

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
        self.encoder = _BesideLinear(
            nn.Conv1d(bands, architecture.dimension, frame, stride=frame),
            nn.Sequential(
                nn.Conv1d(bands, dim, 7, padding=3),
                _blocks(architecture, architecture.spectrogram_layers),
                nn.Conv1d(dim, dim, frame, stride=frame),
                _blocks(architecture, architecture.code_layers),
                _ChannelNorm(dim),
            ),
            nn.Conv1d(dim, architecture.dimension, 1),
        )
        self.quantizer = ResidualVectorQuantizer(architecture.dimension, architecture.n_q, architecture.bins)
        self.decoder = _BesideLinear(
            nn.ConvTranspose1d(architecture.dimension, bands, frame, stride=frame),
            nn.Sequential(
                nn.Conv1d(architecture.dimension, dim, 3, padding=1),
                _blocks(architecture, architecture.code_layers),
                nn.ConvTranspose1d(dim, dim, frame, stride=frame),
                _blocks(architecture, architecture.spectrogram_layers),
                _ChannelNorm(dim),
            ),
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

    @torch.no_grad()
    def fit_linear_maps(self, spectrograms: Float[Tensor, "batch bands time"]) -> None:
        """Makes the linear maps those of the principal components of code frames, in units of their mean deviation."""
        frames = (
            spectrograms.unfold(2, self.frame_length, self.frame_length).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        )
        mean, linear, back = frames.mean(0), self.encoder.linear, self.decoder.linear
        _, sizes, directions = torch.linalg.svd(frames - mean, full_matrices=False)
        count = linear.out_channels
        directions, scale = directions[:count], (sizes[:count] / len(frames) ** 0.5).mean()
        bands_mean = mean.view(-1, self.frame_length).mean(1)
        for layer, weight, bias in (
            (linear, directions / scale, -directions @ mean / scale),
            (back, directions * scale, bands_mean),
        ):
            assert layer.bias is not None
            layer.weight.copy_(weight.view_as(layer.weight))
            layer.bias.copy_(bias)


class _BesideLinear(nn.Module):
    """A network beside a linear map of the same frames; its last layer starts at zero, so that the map comes first."""

    def __init__(self, linear: nn.Conv1d | nn.ConvTranspose1d, network: nn.Module, last: nn.Conv1d) -> None:
        super().__init__()
        self.linear, self.network, self.last = linear, network, last
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch out_channels out_time"]:
        return self.linear(x) + self.last(self.network(x))


class _ChannelNorm(nn.Module):
    """LayerNorm over channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Float[Tensor, "batch dim time"]) -> Float[Tensor, "batch dim time"]:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def _blocks(architecture: SpectralArchitecture, layers: int) -> nn.Sequential:
    from vocos.modules import ConvNeXtBlock  # here, for it imports scipy, which other codecs do not need

    dim = architecture.dim
    return nn.Sequential(*(ConvNeXtBlock(dim, dim * architecture.expansion, 1 / layers) for _ in range(layers)))


class SpectralCodec(CodecModel):
    """A spectral codec as the package uses it: it has no decoder of its own."""

    def __init__(self, model: SpectralModel, architecture: SpectralArchitecture) -> None:
        super().__init__()
        self.model = model
        self.sample_hz, self.hop = architecture.sample_hz, architecture.hop
        self.codebooks, self.codebook_size = architecture.n_q, architecture.bins
        self.latent_dim = architecture.dimension
        self.bandwidths = tuple(architecture.bandwidth_of(count) for count in range(1, architecture.n_q + 1))

    @classmethod
    def load(cls, folder: Path) -> "SpectralCodec":
        """The codec of a directory of `scripts/train_spectral_codec.py`. Raises UserError."""
        return cls(*load_model(folder, SpectralArchitecture, SpectralModel))

    def encode(self, waves: Float[Tensor, "batch samples"], quantizers: int) -> Int[Tensor, "batch time quantizers"]:
        """See `CodecModel.encode`."""
        _, latents = self.model.encode(waves)
        return self.model.quantizer.vq.encode(latents, n_q=quantizers).permute(1, 2, 0)

    def latents(self, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch latent_dim time"]:
        """See `CodecModel.latents`."""
        return self.model.quantizer.decode(codes.permute(2, 0, 1))

    def decode(self, latents: Float[Tensor, "batch latent_dim time"]) -> Float[Tensor, "batch samples"]:
        """See `CodecModel.decode`. Always raises UserError."""
        self.check_decoder()

    def check_decoder(self) -> NoReturn:
        """See `CodecModel.check_decoder`. Always raises UserError."""
        raise UserError(
            "encodec_cfg: a spectral codec has no decoder of its own; train one with scripts/train_vocos.py and name "
            "it as encodec_cfg.decoder"
        )
