"""The model config: windows, tokenizers and the three stages."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from open_musiclm.config.fields import (
    STAGE_NAMES,
    AtMost,
    CodebookSize,
    FrameRate,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Quantizers,
    SampleRate,
    StageName,
    WindowSeconds,
)
from open_musiclm.config.json_files import Section, load_section, section_from_json
from open_musiclm.config.model_checks import (
    check_absolute_positions,
    check_positions,
    check_shortest_windows,
    check_sizes,
)
from open_musiclm.config.stages import CoarseConfig, FineConfig, SemanticConfig, TransformerConfig
from open_musiclm.errors import UserError

_CODEBOOKS = AtMost(256, "every quantizer has a codebook of its own")
_RELATIVE = "`./` and `../` begin a path relative to the config file; other relative paths are to the current folder"
MODEL_CONFIG_NAME = "model_config.json"  # of a bundle, beside its weights
# Section and key of each backbone, by the name that a bundle gives its folder or file.
BACKBONES = {
    "clap": ("clap_rvq_cfg", "model_name"),
    "laion_clap.pt": ("clap_rvq_cfg", "checkpoint_path"),
    "mert": ("hubert_kmeans_cfg", "model_name"),
    "encodec": ("encodec_cfg", "model_name"),
    "decoder": ("encodec_cfg", "decoder"),
}


class GlobalConfig(Section):
    """The windows of the stages and of CLAP, and how the codebooks are shared between the coarse and the fine stage."""

    semantic_audio_length_seconds: WindowSeconds = Field(
        default=10.0, description="window of the semantic stage, seconds; the longest of the three"
    )
    coarse_audio_length_seconds: WindowSeconds = Field(default=4.0, description="window of the coarse stage, seconds")
    fine_audio_length_seconds: WindowSeconds = Field(
        default=2.0, description="window of the fine stage, seconds; the shortest of the three"
    )
    clap_audio_length_seconds: WindowSeconds = Field(
        default=10.0, description="length of sound of one CLAP embedding, seconds"
    )
    num_coarse_quantizers: Quantizers = Field(
        default=3, description="codebooks that the coarse stage predicts: the first ones of the codec"
    )
    num_fine_quantizers: Annotated[NonNegativeInt, _CODEBOOKS] = Field(
        default=5, description="codebooks that the fine stage predicts: the next ones; 0: there is no fine stage"
    )


class ClapRvqConfig(Section):
    """CLAP, and the residual vector quantizer (RVQ) that turns its embeddings into tokens."""

    rq_num_quantizers: Quantizers = Field(default=12, description="quantizers: the number of CLAP tokens per embedding")
    codebook_size: CodebookSize = Field(default=1024, description="codes of each quantizer")
    enable_fusion: bool = Field(
        default=False, description="whether CLAP has feature fusion, for sound longer than 10 s"
    )
    rq_ema_decay: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95, description="decay of the moving averages that train the codes"
    )
    threshold_ema_dead_code: NonNegativeFloat = Field(
        default=0.0, description="a code whose average use per update falls below this is replaced; 0: never"
    )
    checkpoint_path: str | None = Field(
        default=None,
        description="a LAION checkpoint (.pt) to use instead of `model_name`; " + _RELATIVE,
    )
    amodel_type: Literal["HTSAT-tiny", "HTSAT-base", "HTSAT-large"] = Field(
        default="HTSAT-tiny", description="audio tower of the LAION checkpoint; has no effect without one"
    )
    model_name: str | None = Field(
        default=None,
        description="CLAP: a hub id, or a local directory; null takes `laion/clap-htsat-unfused`, or "
        "`laion/clap-htsat-fused` with `enable_fusion`; " + _RELATIVE,
    )
    sample_hz: SampleRate = Field(default=48000, description="sample rate of CLAP's input, Hz")


class HubertKmeansConfig(Section):
    """MERT (or HuBERT) and the k-means over its features: the semantic tokens."""

    model_name: str = Field(
        default="m-a-p/MERT-v0",
        description="MERT: a hub id, or a local directory; " + _RELATIVE,
    )
    normalize_embeds: bool = Field(
        default=True, description="whether features are normalised per frame: zero mean, unit variance"
    )
    embed_layer: NonNegativeInt = Field(
        default=7, description="transformer layer whose output is used, counted from 1; 0: the input of the first"
    )
    target_sample_hz: SampleRate = Field(default=16000, description="sample rate of MERT's input, Hz")
    seq_len_multiple_of: PositiveInt = Field(
        default=320, description="samples per frame; waves are cut to a multiple of it"
    )
    codebook_size: CodebookSize = Field(default=1024, description="clusters of the k-means: the number of semantic ids")
    output_hz: FrameRate = Field(
        default=50, description="semantic tokens per second: `target_sample_hz` / `seq_len_multiple_of`"
    )
    trust_remote_code: bool = Field(
        default=False,
        description="has no effect alone: the model's own Python code runs only with the flag `--trust_remote_code`",
    )

    @model_validator(mode="after")
    def _rate_follows_from_hop(self) -> "HubertKmeansConfig":
        if self.target_sample_hz != self.output_hz * self.seq_len_multiple_of:
            raise ValueError(
                f"target_sample_hz {self.target_sample_hz} must be output_hz {self.output_hz} times "
                f"seq_len_multiple_of {self.seq_len_multiple_of}"
            )
        return self


class EncodecConfig(Section):
    """EnCodec: the codec of the acoustic tokens."""

    bandwidth: PositiveFloat = Field(
        default=6.0,
        description="bandwidth in kbps; must be that of num_coarse_quantizers + num_fine_quantizers codebooks",
    )
    codebook_size: CodebookSize = Field(default=1024, description="codes of each codebook")
    output_hz: FrameRate = Field(default=75, description="frames per second")
    model_name: str = Field(
        default="encodec_24khz",
        description="`encodec_24khz`, the hub id of an EnCodec in transformers' layout such as "
        "`facebook/encodec_32khz`, or a local directory; " + _RELATIVE,
    )
    decoder: str | None = Field(
        default=None,
        description="decoder of the tokens: null for the codec's own, or a Vocos, "
        "`charactr/vocos-encodec-24khz` or a local directory; " + _RELATIVE,
    )
    sample_hz: SampleRate = Field(default=24000, description="sample rate of the waves, Hz")

    @model_validator(mode="after")
    def _whole_hop(self) -> "EncodecConfig":
        if self.sample_hz % self.output_hz:
            raise ValueError(f"sample_hz {self.sample_hz} must be a multiple of output_hz {self.output_hz}")
        return self


class ModelConfig(Section):
    """The whole model: windows, tokenizers and the three stages."""

    global_cfg: GlobalConfig = Field(description="windows, and the codebooks of the coarse and the fine stage")
    clap_rvq_cfg: ClapRvqConfig = Field(description="CLAP and its quantizer: CLAP tokens")
    hubert_kmeans_cfg: HubertKmeansConfig = Field(description="MERT and k-means: semantic tokens")
    encodec_cfg: EncodecConfig = Field(description="the codec: acoustic tokens")
    semantic_cfg: SemanticConfig = Field(description="transformer of the semantic stage")
    coarse_cfg: CoarseConfig = Field(description="transformer of the coarse stage")
    fine_cfg: FineConfig = Field(description="transformer of the fine stage")
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
        check_shortest_windows(self)
        check_positions(self)
        check_sizes(self)
        return self

    @property
    def token_grid(self) -> Fraction:
        """The shortest time, in seconds, that is a whole number of semantic tokens and of acoustic frames."""
        return Fraction(1, math.gcd(self.hubert_kmeans_cfg.output_hz, self.encodec_cfg.output_hz))

    @property
    def num_acoustic_quantizers(self) -> int:
        """Coarse and fine codebooks together."""
        return self.global_cfg.num_coarse_quantizers + self.global_cfg.num_fine_quantizers

    def quantizers_up_to(self, last: StageName) -> int:
        """The codebooks of the sound if `last` is the last stage that runs: all, or the coarse ones."""
        return self.num_acoustic_quantizers if last == "fine" else self.global_cfg.num_coarse_quantizers

    @property
    def stage_names(self) -> tuple[StageName, ...]:
        """The stages of the model: without fine codebooks there is no fine stage."""
        return STAGE_NAMES if self.global_cfg.num_fine_quantizers else STAGE_NAMES[:-1]

    def check_stage(self, name: StageName) -> None:
        """Raises UserError if the model has no such stage."""
        if name not in self.stage_names:
            raise UserError(
                f"this model has no {name} stage: its coarse stage predicts all codebooks (num_fine_quantizers 0)"
            )

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

        A name that starts with ./ or ../ is relative to the config file; other names are unchanged.
        """
        return str((self._folder / name).resolve()) if name.startswith(("./", "../")) else name


def load_model_config(path: Path | str) -> ModelConfig:
    """Reads and validates a model config. Raises UserError."""
    path = Path(path)
    config = load_section(path, ModelConfig)
    config._folder = path.resolve().parent
    try:
        check_absolute_positions(config)  # not for checkpoints: they work in shorter windows
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config


def model_config_from_json(text: str, source: str) -> ModelConfig:
    """The model config inside a checkpoint; `source` names the checkpoint in errors."""
    return section_from_json(text, source, ModelConfig)


def _is_multiple(seconds: float, grid: Fraction) -> bool:
    steps = seconds / float(grid)
    return round(steps) > 0 and math.isclose(steps, round(steps), abs_tol=1e-9)
