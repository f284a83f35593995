"""The model config: windows, tokenizers and the three stages."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from open_musiclm.config.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    StageName,
    accept_renamed_key,
)
from open_musiclm.config.json_files import Section, load_section, section_from_json

MODEL_CONFIG_NAME = "model_config.json"  # of a bundle, beside its weights


class GlobalConfig(Section):
    """Windows in seconds, and how EnCodec's codebooks are shared between the coarse and the fine stage."""

    semantic_audio_length_seconds: PositiveFloat = 10.0
    coarse_audio_length_seconds: PositiveFloat = 4.0
    fine_audio_length_seconds: PositiveFloat = 2.0
    clap_audio_length_seconds: PositiveFloat = 10.0
    num_coarse_quantizers: PositiveInt = 3
    num_fine_quantizers: NonNegativeInt = 5


class ClapRvqConfig(Section):
    """CLAP and the residual VQ that turns its embeddings into tokens.

    `model_name` is a hub id or a local directory (see `ModelConfig.backbone`); null takes the released
    CLAP that fits `enable_fusion`. `checkpoint_path` names a LAION .pt instead, of shape `amodel_type`.
    """

    rq_num_quantizers: PositiveInt = 12
    codebook_size: PositiveInt = 1024
    enable_fusion: bool = False
    rq_ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.95
    threshold_ema_dead_code: NonNegativeFloat = 0.0
    checkpoint_path: str | None = None
    amodel_type: Literal["HTSAT-tiny", "HTSAT-base", "HTSAT-large"] = "HTSAT-tiny"
    model_name: str | None = None
    sample_hz: PositiveInt = 48000


class HubertKmeansConfig(Section):
    """MERT (or HuBERT), the layer its features are taken from, and the k-means over them."""

    model_name: str = "m-a-p/MERT-v0"
    normalize_embeds: bool = True
    embed_layer: NonNegativeInt = 7
    target_sample_hz: PositiveInt = 16000
    seq_len_multiple_of: PositiveInt = 320
    codebook_size: PositiveInt = 1024
    output_hz: PositiveInt = 50
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _rate_follows_from_hop(self) -> "HubertKmeansConfig":
        if self.target_sample_hz != self.output_hz * self.seq_len_multiple_of:
            raise ValueError(
                f"target_sample_hz {self.target_sample_hz} must be output_hz {self.output_hz} times "
                f"seq_len_multiple_of {self.seq_len_multiple_of}"
            )
        return self


class EncodecConfig(Section):
    """EnCodec: `model_name` is `encodec_24khz` or a local directory; bandwidth in kbps, rates in Hz."""

    bandwidth: PositiveFloat = 6.0
    codebook_size: PositiveInt = 1024
    output_hz: PositiveInt = 75
    model_name: str = "encodec_24khz"
    sample_hz: PositiveInt = 24000

    @model_validator(mode="after")
    def _whole_hop(self) -> "EncodecConfig":
        if self.sample_hz % self.output_hz:
            raise ValueError(f"sample_hz {self.sample_hz} must be a multiple of output_hz {self.output_hz}")
        return self


class TransformerConfig(Section):
    """One stage's transformer.

    `conditioning_time_bias` lets attention prefer the conditioning of the moment that is predicted: distances between
    positions do not tell which that is, for the sequences have different rates.
    `condition_dropout` is the share of training examples whose conditioning is hidden, all of it; guidance needs some.
    """

    dim: PositiveInt = 1024
    depth: PositiveInt = 6
    heads: PositiveInt = 8
    attn_dropout: Probability = 0.0
    ff_dropout: Probability = 0.1
    use_conv_ff: bool = True
    grad_shrink_alpha: Annotated[float, Field(gt=0, le=1)] = 0.1
    non_causal_prefix_size: NonNegativeInt = 0
    relative_position_bias_type: Literal["continuous", "t5", "none"] = "continuous"
    use_memory_efficient_attention: bool = False
    use_absolute_position_embeddings: bool = False
    max_absolute_position_embeddings: PositiveInt = 262
    conditioning_time_bias: bool = False
    condition_dropout: Probability = 0.0
    history_corruption: Probability = Field(
        default=0.0,
        description="Experimental. Share of training examples in whose history, the tokens that the next one is "
        "predicted from, a span comes from another example of the batch.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, section: object) -> object:
        return accept_renamed_key(section, "strayed_history", "history_corruption")


class SemanticConfig(TransformerConfig):
    """The semantic stage's transformer."""


class AcousticConfig(TransformerConfig):
    """What the coarse and the fine stage share: how acoustic tokens are laid out."""

    token_layout: Literal["flat", "frames"] = Field(
        default="flat",
        description="flat: a position per token, as released checkpoints; frames: a position per acoustic frame",
    )
    conditioning_kernel: PositiveInt = Field(
        default=9, description="frames layout: conditioning frames that one convolution over them sees; odd"
    )
    conditioning_depth: NonNegativeInt = Field(
        default=2, description="frames layout: convolution blocks over the conditioning"
    )

    @model_validator(mode="after")
    def _frames_fit(self) -> "AcousticConfig":
        if self.conditioning_kernel % 2 == 0:
            raise ValueError(f"conditioning_kernel {self.conditioning_kernel}: expected an odd number")
        if self.token_layout == "frames":
            for key in ("conditioning_time_bias", "non_causal_prefix_size", "use_absolute_position_embeddings"):
                if getattr(self, key):
                    raise ValueError(f"{key}: only with token_layout flat; leave it out for frames")
        return self


class CoarseConfig(AcousticConfig):
    """The coarse stage's transformer."""

    max_absolute_position_embeddings: PositiveInt = 712


class FineConfig(AcousticConfig):
    """The fine stage's transformer."""

    max_absolute_position_embeddings: PositiveInt = 1212


class ModelConfig(Section):
    """The whole model: windows, tokenizers and the three stages."""

    global_cfg: GlobalConfig
    clap_rvq_cfg: ClapRvqConfig
    hubert_kmeans_cfg: HubertKmeansConfig
    encodec_cfg: EncodecConfig
    semantic_cfg: SemanticConfig
    coarse_cfg: CoarseConfig
    fine_cfg: FineConfig
    _folder: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="after")
    def _windows_fit(self) -> "ModelConfig":
        windows = self.global_cfg
        lengths = (
            windows.semantic_audio_length_seconds,
            windows.coarse_audio_length_seconds,
            windows.fine_audio_length_seconds,
        )
        if not lengths[0] >= lengths[1] >= lengths[2]:
            raise ValueError(
                "global_cfg: semantic_audio_length_seconds >= coarse_audio_length_seconds >= "
                f"fine_audio_length_seconds must hold, found {lengths[0]}, {lengths[1]}, {lengths[2]}"
            )
        for seconds in lengths:
            if not _is_multiple(seconds, self.token_grid):
                raise ValueError(
                    f"global_cfg: a window of {seconds} s is not a whole number of tokens at "
                    f"{self.hubert_kmeans_cfg.output_hz} Hz and {self.encodec_cfg.output_hz} Hz; "
                    f"use a multiple of {float(self.token_grid)} s"
                )
        return self

    @property
    def token_grid(self) -> Fraction:
        """The shortest step in seconds that is whole in semantic tokens and in acoustic frames."""
        return Fraction(1, math.gcd(self.hubert_kmeans_cfg.output_hz, self.encodec_cfg.output_hz))

    @property
    def num_acoustic_quantizers(self) -> int:
        """Coarse and fine codebooks together."""
        return self.global_cfg.num_coarse_quantizers + self.global_cfg.num_fine_quantizers

    @property
    def stage_names(self) -> tuple[StageName, ...]:
        """The stages of the model: without fine codebooks there is no fine stage."""
        return ("semantic", "coarse", "fine") if self.global_cfg.num_fine_quantizers else ("semantic", "coarse")

    def stage(self, name: StageName) -> TransformerConfig:
        """The transformer section of stage `name`."""
        return {"semantic": self.semantic_cfg, "coarse": self.coarse_cfg, "fine": self.fine_cfg}[name]

    def window_seconds(self, name: StageName) -> float:
        """The window of stage `name` in seconds."""
        return {
            "semantic": self.global_cfg.semantic_audio_length_seconds,
            "coarse": self.global_cfg.coarse_audio_length_seconds,
            "fine": self.global_cfg.fine_audio_length_seconds,
        }[name]

    def backbone(self, name: str) -> str:
        """A backbone's hub id, or the path of its local directory.

        A name that starts with ./ or ../ is a directory beside the config file; any other is taken as it is.
        """
        return str((self._folder / name).resolve()) if name.startswith(("./", "../")) else name


def load_model_config(path: Path) -> ModelConfig:
    """Reads and validates a model config. Raises UserError."""
    config = load_section(path, ModelConfig)
    config._folder = path.resolve().parent
    return config


def model_config_from_json(text: str, source: str) -> ModelConfig:
    """The model config that a checkpoint carries; `source` names the checkpoint in errors."""
    return section_from_json(text, source, ModelConfig)


def _is_multiple(seconds: float, grid: Fraction) -> bool:
    return math.isclose(seconds / float(grid), round(seconds / float(grid)), abs_tol=1e-9)
