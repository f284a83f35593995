"""The model config and the training config: JSON files as validated types (no torch in here)."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from open_musiclm.config_files import Section, SectionType, load_section, section_from_json
from open_musiclm.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
TrainingPrecision = Literal["auto", "float32", "bfloat16"]
StageName = Literal["semantic", "coarse", "fine"]


class GlobalConfig(Section):
    """Windows in seconds, and how EnCodec's codebooks are shared between the coarse and the fine stage."""

    semantic_audio_length_seconds: PositiveFloat = 10.0
    coarse_audio_length_seconds: PositiveFloat = 4.0
    fine_audio_length_seconds: PositiveFloat = 2.0
    clap_audio_length_seconds: PositiveFloat = 10.0
    num_coarse_quantizers: PositiveInt = 3
    num_fine_quantizers: PositiveInt = 5


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
    `strayed_history` is the share in whose history, the tokens that the next one is predicted from, a span is that of
    another one in the process's batch: a stage that has strayed from its condition learns to come back to it.
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
    strayed_history: Probability = 0.0


class SemanticConfig(TransformerConfig):
    """The semantic stage's transformer."""


class CoarseConfig(TransformerConfig):
    """The coarse stage's transformer."""

    max_absolute_position_embeddings: PositiveInt = 712


class FineConfig(TransformerConfig):
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


class TrainerConfig(Section):
    """What every gradient trainer takes; the folder holds sound (or preprocessed tokens).

    Validation takes the whole validation set, or the same `max_validation_examples` of it, chosen at random, each time.
    """

    folder: str
    num_train_steps: PositiveInt
    batch_size: PositiveInt
    save_model_every: PositiveInt = 1000
    save_results_every: PositiveInt = 250
    max_validation_examples: PositiveInt | None = None
    num_workers: NonNegativeInt = 2
    seed: int = 0
    keep_last: PositiveInt = 3


class ClapRvqTrainerConfig(TrainerConfig):
    """The CLAP RVQ trainer: `accumulate_batches` batches of embeddings make one codebook update."""

    accumulate_batches: PositiveInt = 1
    valid_frac: Probability = 0.05


class HubertKmeansTrainerConfig(Section):
    """k-means is fitted on `feature_extraction_num_steps` batches of crops."""

    folder: str
    feature_extraction_num_steps: PositiveInt
    feature_extraction_batch_size: PositiveInt
    num_workers: NonNegativeInt = 2
    seed: int = 0


class StageTrainerConfig(TrainerConfig):
    """A stage's trainer.

    The learning rate warms up, stays for `constant_share` of all steps and falls to zero along a cosine (1: it stays).
    `precision` is that of the products (weights and optimizer are float32); auto is bfloat16 where the device has
    units for it. `gradient_checkpointing` computes each block twice to keep less; `compile` compiles the blocks.
    """

    stage: StageName
    valid_frac: Probability = 0.05
    lr: PositiveFloat = 3e-4
    lr_warmup: NonNegativeInt = 0
    constant_share: Share = 1.0
    grad_accum_every: PositiveInt = 1
    wd: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 0.5
    cross_entropy_loss_weights: list[NonNegativeFloat] | None = None
    save_predicted_tokens: bool = True
    save_reconstructed_wave: bool = True
    use_preprocessed_data: bool = False
    precision: TrainingPrecision = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _one_weight_per_sequence(self) -> "StageTrainerConfig":
        sequences = 2 if self.stage == "semantic" else 3
        weights = self.cross_entropy_loss_weights
        if weights is not None and len(weights) != sequences:
            raise ValueError(f"cross_entropy_loss_weights: expected {sequences} numbers, found {len(weights)}")
        return self


class DataPreprocessorConfig(Section):
    """How folders of sound become a token store."""

    folder: str
    metadata_folder: str | None = None
    results_folder: str
    max_audio_length_seconds: PositiveFloat = 30.0
    random_crop: bool = True
    num_crops: PositiveInt = 1
    clap_batch_size: PositiveInt = 32
    num_workers: NonNegativeInt = 2
    seed: int = 0


class TrainingConfig(Section):
    """The training config; a script asks for the section it needs with `require`."""

    clap_rvq_trainer_cfg: ClapRvqTrainerConfig | None = None
    hubert_kmeans_trainer_cfg: HubertKmeansTrainerConfig | None = None
    semantic_trainer_cfg: StageTrainerConfig | None = None
    coarse_trainer_cfg: StageTrainerConfig | None = None
    fine_trainer_cfg: StageTrainerConfig | None = None
    data_preprocessor_cfg: DataPreprocessorConfig | None = None
    _path: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_absent(cls, sections: object) -> object:
        if not isinstance(sections, dict):
            return sections
        return {name: section for name, section in sections.items() if section != {}}

    @model_validator(mode="after")
    def _stage_fits_section(self) -> "TrainingConfig":
        for stage in ("semantic", "coarse", "fine"):
            section: StageTrainerConfig | None = getattr(self, f"{stage}_trainer_cfg")
            if section is not None and section.stage != stage:
                raise ValueError(f"{stage}_trainer_cfg: stage: expected '{stage}', found '{section.stage}'")
        return self


def load_model_config(path: Path) -> ModelConfig:
    """Reads and validates a model config. Raises UserError."""
    config = load_section(path, ModelConfig)
    config._folder = path.resolve().parent
    return config


def load_training_config(path: Path) -> TrainingConfig:
    """Reads and validates a training config. Raises UserError."""
    config = load_section(path, TrainingConfig)
    config._path = path
    return config


def model_config_from_json(text: str, source: str) -> ModelConfig:
    """The model config that a checkpoint carries; `source` names the checkpoint in errors."""
    return section_from_json(text, source, ModelConfig)


def require(config: TrainingConfig, name: str, kind: type[SectionType]) -> SectionType:
    """Section `name` of a training config. Raises UserError where the file lacks it."""
    section = getattr(config, name)
    if section is None:
        raise UserError(f"{config._path}: section {name} is missing or empty; this script needs it")
    assert isinstance(section, kind)
    return section


def _is_multiple(seconds: float, grid: Fraction) -> bool:
    return math.isclose(seconds / float(grid), round(seconds / float(grid)), abs_tol=1e-9)
