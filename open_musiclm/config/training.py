"""The training config: one section for each trainer, and one for preprocessing."""

from pathlib import Path

from pydantic import PrivateAttr, model_validator

from open_musiclm.config.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Share,
    StageName,
    TrainingPrecision,
)
from open_musiclm.config.json_files import Section, SectionType, load_section
from open_musiclm.errors import UserError


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


def load_training_config(path: Path) -> TrainingConfig:
    """Reads and validates a training config. Raises UserError."""
    config = load_section(path, TrainingConfig)
    config._path = path
    return config


def require(config: TrainingConfig, name: str, kind: type[SectionType]) -> SectionType:
    """Section `name` of a training config. Raises UserError where the file lacks it."""
    section = getattr(config, name)
    if section is None:
        raise UserError(f"{config._path}: section {name} is missing or empty; this script needs it")
    assert isinstance(section, kind)
    return section
