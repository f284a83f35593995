"""An EnCodec of any size as a directory: `config.json` (architecture) and `model.safetensors` (weights).

Composed from the classes of the encodec package (Défossez et al. 2022); the defaults are the released 24 kHz
model. A small one is trained by `scripts/train_encodec.py` and read by `Codec.load`.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import encodec
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from pydantic import Field, model_validator
from torch import Tensor

from open_musiclm.config import PositiveFloat
from open_musiclm.config.json_files import Section
from open_musiclm.tokenizers.own_directory import load_model, model_with_weights

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Few = Annotated[int, Field(ge=1, le=128)]
Ratios = Annotated[tuple[Few, ...], Field(min_length=1, max_length=16, strict=False)]
Bandwidths = Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=1024, strict=False)]


class EncodecArchitecture(Section):
    """The shape of a causal mono EnCodec; names as in the encodec package, bandwidths in kbps."""

    sample_hz: Annotated[int, Field(ge=1, le=384000)] = 24000
    dimension: Size = 128
    n_filters: Size = 32
    n_residual_layers: Annotated[int, Field(ge=1, le=16)] = 1
    ratios: Ratios = (8, 5, 4, 2)
    kernel_size: Few = 7
    last_kernel_size: Few = 7
    residual_kernel_size: Few = 3
    dilation_base: Annotated[int, Field(ge=1, le=16)] = 2
    compress: Size = 2
    lstm: Annotated[int, Field(ge=0, le=16)] = 2
    n_q: Few = 32
    bins: Size = 1024
    target_bandwidths: Bandwidths = (
        1.5,
        3.0,
        6.0,
        12.0,
        24.0,
    )

    @model_validator(mode="after")
    def _whole_frames_and_codebooks(self) -> "EncodecArchitecture":
        if self.sample_hz % self.hop:
            raise ValueError(f"sample_hz {self.sample_hz} must be a multiple of the product of ratios, {self.hop}")
        if self.bins & (self.bins - 1) or self.bins < 2:
            raise ValueError(f"bins must be a power of two, found {self.bins}")
        for bandwidth in self.target_bandwidths:
            if not 1 <= self.quantizers_at(bandwidth) <= self.n_q:
                raise ValueError(
                    f"target_bandwidths: {bandwidth} kbps is {self.quantizers_at(bandwidth)} codebooks, "
                    f"from 1 to n_q = {self.n_q} are possible"
                )
        return self

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    def bandwidth_of(self, quantizers: int) -> float:
        """kbps of the first `quantizers` codebooks."""
        return quantizers * math.log2(self.bins) * (self.sample_hz // self.hop) / 1000

    def quantizers_at(self, bandwidth: float) -> int:
        """How many codebooks fit into `bandwidth` kbps."""
        return math.floor(bandwidth / self.bandwidth_of(1) + 1e-6)


def build_encodec(architecture: EncodecArchitecture) -> encodec.EncodecModel:
    """An EnCodec with random weights; its codebooks start by k-means on the first training batch."""
    shape = architecture.model_dump(
        include={
            "dimension",
            "n_filters",
            "n_residual_layers",
            "kernel_size",
            "last_kernel_size",
            "residual_kernel_size",
            "dilation_base",
            "compress",
            "lstm",
        }
    )
    with warnings.catch_warnings():  # the package uses torch's older weight_norm, which works and warns
        warnings.simplefilter("ignore", FutureWarning)
        encoder = SEANetEncoder(channels=1, causal=True, ratios=list(architecture.ratios), **shape)
        decoder = SEANetDecoder(channels=1, causal=True, ratios=list(architecture.ratios), **shape)
    return encodec.EncodecModel(
        encoder,
        decoder,
        ResidualVectorQuantizer(architecture.dimension, architecture.n_q, architecture.bins),
        list(architecture.target_bandwidths),
        sample_rate=architecture.sample_hz,
        channels=1,
    )


def load_encodec(folder: Path) -> tuple[encodec.EncodecModel, EncodecArchitecture]:
    """The model in evaluation mode on the CPU, and its architecture. Raises UserError."""
    return load_model(folder, EncodecArchitecture, build_encodec)


def encodec_with_weights(
    architecture: EncodecArchitecture, tensors: Mapping[str, Tensor], weights: Path
) -> encodec.EncodecModel:
    """The model in evaluation mode with these weights, of the file `weights`. Raises UserError."""
    return model_with_weights(lambda: build_encodec(architecture), tensors, weights)
