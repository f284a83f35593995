"""EnCodec in transformers' layout, such as facebook/encodec_32khz, MusicGen's codec (Copet et al. 2023).

That one has 4 codebooks of 2,048 at 50 Hz. Defaults are those of transformers, for its files leave defaults out.
"""

from pathlib import Path
from typing import Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from open_musiclm.checkpoints.foreign import CONFIG_NAME, Description, ForeignDirectory
from open_musiclm.config.json_files import shown
from open_musiclm.tokenizers.codec_model import CodecModel
from open_musiclm.tokenizers.pretrained import Size, pretrained_model

_Few = Annotated[int, Field(ge=1, le=128)]
_Bandwidths = Annotated[list[Annotated[float, Field(gt=0, le=1000)]], Field(min_length=1, max_length=64)]
# Frames that its convolutions look ahead: half of every kernel, at the rate that it works at.
_LOOKAHEAD_FRAMES = 8


class _Encodec(Description):
    model_type: str = "absent"
    target_bandwidths: _Bandwidths = Field(default=[1.5, 3.0, 6.0, 12.0, 24.0])
    sampling_rate: Annotated[int, Field(ge=1, le=384000)] = 24000
    audio_channels: Literal[1] = 1
    normalize: Literal[False] = False
    chunk_length_s: None = None
    hidden_size: Size = 128
    num_filters: Size = 32
    num_residual_layers: _Few = 1
    upsampling_ratios: Annotated[list[_Few], Field(min_length=1, max_length=16)] = Field(default=[8, 5, 4, 2])
    norm_type: Literal["weight_norm", "time_group_norm"] = "weight_norm"
    kernel_size: _Few = 7
    last_kernel_size: _Few = 7
    residual_kernel_size: _Few = 3
    dilation_growth_rate: _Few = 2
    use_causal_conv: bool = True
    pad_mode: Literal["reflect", "constant", "replicate"] = "reflect"
    compress: _Few = 2
    num_lstm_layers: Annotated[int, Field(ge=0, le=16)] = 2
    trim_right_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    codebook_size: Annotated[int, Field(ge=2, le=1 << 20)] = 1024
    codebook_dim: Size | None = None
    use_conv_shortcut: bool = True


class EncodecTransformers(CodecModel):
    """A mono EnCodec in transformers' layout."""

    def __init__(self, model: EncodecModel) -> None:
        super().__init__()
        self.model, config = model, model.config
        self.sample_hz = config.sampling_rate
        self.hop = config.sampling_rate // config.frame_rate
        self.codebooks, self.codebook_size = config.num_quantizers, config.codebook_size
        self.latent_dim, self.bandwidths = config.hidden_size, tuple(config.target_bandwidths)
        self.lookahead_frames = 0 if config.use_causal_conv else _LOOKAHEAD_FRAMES

    @classmethod
    def load(cls, directory: ForeignDirectory) -> "EncodecTransformers":
        """The model in float32 and evaluation mode. Raises UserError."""
        return cls(pretrained_model(EncodecModel, _config(directory), directory.tensors(), directory))

    def encode(self, waves: Float[Tensor, "batch samples"], quantizers: int) -> Int[Tensor, "batch time quantizers"]:
        """See `CodecModel.encode`."""
        embeddings = self.model.encoder(waves.unsqueeze(1))
        codes = self.model.quantizer.encode(embeddings, self.bandwidths[-1])
        return codes[:quantizers].permute(1, 2, 0)

    def latents(self, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch latent_dim time"]:
        """See `CodecModel.latents`."""
        return self.model.quantizer.decode(codes.permute(2, 0, 1))

    def decode(self, latents: Float[Tensor, "batch latent_dim time"]) -> Float[Tensor, "batch samples"]:
        """See `CodecModel.decode`."""
        return self.model.decoder(latents).squeeze(1)[:, : latents.shape[2] * self.hop]


def encodec_paths(directory: ForeignDirectory) -> list[Path]:
    """The files that `EncodecTransformers.load` reads. Raises UserError."""
    _config(directory)
    return [directory.need(CONFIG_NAME), *directory.weights_files()]


def _config(directory: ForeignDirectory) -> EncodecConfig:
    description = directory.read(CONFIG_NAME, _Encodec)
    if description.model_type != "encodec":
        raise directory.refusal(
            f"{CONFIG_NAME}: model_type: an EnCodec is needed, found {shown(description.model_type)}"
        )
    with directory.reading(CONFIG_NAME):
        return EncodecConfig(**{**description.given(), "model_type": "encodec"})
