"""The training config: one section for each trainer, and one for preprocessing."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from open_musiclm.config.augment import AugmentConfig
from open_musiclm.config.fields import (
    STAGE_NAMES,
    AtMost,
    BatchSize,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Share,
    StageName,
    TrainingPrecision,
    TrainingSeed,
    Workers,
)
from open_musiclm.config.json_files import Section, SectionType, load_section
from open_musiclm.config.lora import LoraConfig
from open_musiclm.errors import UserError

_RATE = "Learning rate of AdamW after the warm-up."
_CONSTANT_SHARE = "Share of all steps before the rate falls to zero along a cosine; 1: it never falls."
_MAX_GRAD_NORM = "Largest norm of the gradient; a larger one is scaled down."
_WORKERS = "Processes that read and prepare data; 0: the main process does it."
_SEED = "Seed of all random numbers in the run."


class TrainerConfig(Section):
    """The keys of every trainer with steps."""

    folder: str = Field(description="Folder of sound files, searched recursively.")
    num_train_steps: PositiveInt = Field(description="Steps of the whole run.")
    batch_size: BatchSize = Field(description="Examples in a batch of each process.")
    save_model_every: PositiveInt = Field(default=1000, description="Steps from one checkpoint to the next.")
    save_results_every: PositiveInt = Field(default=250, description="Steps from one validation to the next.")
    valid_frac: Probability = Field(default=0.05, description="Share of the files for validation.")
    max_validation_examples: PositiveInt | None = Field(
        default=None, description="Number of validation examples, chosen once at random; null: all."
    )
    num_workers: Workers = Field(default=2, description=_WORKERS)
    seed: TrainingSeed = Field(default=0, description=_SEED)
    keep_last: PositiveInt = Field(
        default=3, description="Number of newest checkpoints that are kept, besides the best one."
    )


class GradientTrainerConfig(TrainerConfig):
    """The keys of every trainer with AdamW. The rate rises linearly, stays, and may fall to zero along a cosine."""

    lr: PositiveFloat = Field(description=_RATE)
    lr_warmup: NonNegativeInt = Field(default=0, description="Steps in which the rate rises linearly to lr.")
    constant_share: Share = Field(default=1.0, description=_CONSTANT_SHARE)
    wd: NonNegativeFloat = Field(default=0.01, description="Weight decay of matrices; vectors have none.")
    max_grad_norm: PositiveFloat = Field(default=1.0, description=_MAX_GRAD_NORM)
    precision: TrainingPrecision = Field(
        default="auto",
        description="Precision of matrix products; weights and optimizer are float32. auto: bfloat16 if the device "
        "supports it in hardware.",
    )


class ClapRvqTrainerConfig(TrainerConfig):
    """The trainer of the CLAP RVQ."""

    accumulate_batches: PositiveInt = Field(
        default=1, description="Batches of embeddings that make one update of the codebooks."
    )


class HubertKmeansTrainerConfig(Section):
    """The trainer of the k-means over MERT's features."""

    folder: str = Field(description="Folder of sound files, searched recursively.")
    feature_extraction_num_steps: PositiveInt = Field(description="Batches of crops that k-means is fitted on.")
    feature_extraction_batch_size: BatchSize = Field(description="Crops in a batch of each process.")
    num_workers: Workers = Field(default=2, description=_WORKERS)
    seed: TrainingSeed = Field(default=0, description=_SEED)


class StageTrainerConfig(GradientTrainerConfig):
    """The trainer of one stage."""

    stage: StageName = Field(description="Name of the stage; it must be that of the section.")
    lr: PositiveFloat = Field(default=3e-4, description=_RATE)
    max_grad_norm: PositiveFloat = Field(default=0.5, description=_MAX_GRAD_NORM)
    grad_accum_every: PositiveInt = Field(default=1, description="Batches that make one optimizer step.")
    cross_entropy_loss_weights: list[NonNegativeFloat] | None = Field(
        default=None,
        description="Loss weight of each token sequence, the predicted one last; null: 0 for the conditioning, 1 for "
        "the predicted one.",
    )
    save_predicted_tokens: bool = Field(
        default=True, description="Write predicted and true tokens of some validation examples."
    )
    save_reconstructed_wave: bool = Field(
        default=True, description="Write predicted and true tokens of some validation examples as waves."
    )
    use_preprocessed_data: bool = Field(
        default=False, description="Whether folder has tokens of scripts/preprocess_data.py, not sound."
    )
    evaluate_every: PositiveInt | None = Field(
        default=None,
        description="Steps from one evaluation of generated sound to the next: CLAP score and FAD of validation "
        "examples that the stage generates; null: never.",
    )
    evaluate_samples: Annotated[PositiveInt, Field(ge=2)] = Field(
        default=32, description="Examples that are generated for an evaluation."
    )
    evaluate_coarse_path: str | None = Field(
        default=None,
        description="Semantic stage with `evaluate_every`: the coarse stage, a checkpoint or its results folder, that "
        "turns its tokens into sound.",
    )
    gradient_checkpointing: bool = Field(default=False, description="Compute each block twice to save memory.")
    compile: bool = Field(default=False, description="Compile the blocks with torch.compile (GPU only).")
    lora: LoraConfig | None = Field(
        default=None, description="Train an adapter on the weights at --fine_tune_from; null: train all weights."
    )
    early_stop_patience: PositiveInt | None = Field(
        default=None,
        description="End the run after so many validations in a row without a lower loss; its results folder then "
        "means the best checkpoint. null: never.",
    )
    repeat: PositiveInt | None = Field(
        default=None,
        description="End the run after so many passes over the training files (one window of each), if that is before "
        "num_train_steps; null: no limit.",
    )
    caption_share: Share = Field(
        default=0.0,
        description="Share of the captioned examples whose CLAP tokens come from the caption (CLAP's text tower) "
        "instead of the sound.",
    )
    augment: AugmentConfig | None = Field(
        default=None, description="Changes of the sound before it is tokenized; null: none."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Decay of a moving average of the weights, which validation, samples and checkpoints use; null: "
        "none.",
    )

    @model_validator(mode="after")
    def _one_weight_per_sequence(self) -> "StageTrainerConfig":
        sequences = 2 if self.stage == "semantic" else 3
        weights = self.cross_entropy_loss_weights
        if weights is not None and len(weights) != sequences:
            raise ValueError(f"cross_entropy_loss_weights: expected {sequences} numbers, found {len(weights)}")
        if weights is not None and not any(weights):
            raise ValueError("cross_entropy_loss_weights: all are 0, so nothing would be trained")
        return self

    @model_validator(mode="after")
    def _sound_to_evaluate(self) -> "StageTrainerConfig":
        if self.evaluate_every is not None and self.stage == "semantic" and self.evaluate_coarse_path is None:
            raise ValueError(
                "evaluate_every: the semantic stage alone cannot generate sound; name an evaluate_coarse_path"
            )
        return self


class DataPreprocessorConfig(Section):
    """Preprocessing of a folder of sound into a token store."""

    folder: str = Field(description="Folder of sound files, searched recursively.")
    metadata_folder: str | None = Field(
        default=None, description="Folder of FMA's metadata (tracks.csv), for --filter_fma."
    )
    results_folder: str = Field(description="Folder that the tokens are written to.")
    max_audio_length_seconds: Annotated[PositiveFloat, AtMost(86400, "a crop is held in memory as a whole")] = Field(
        default=30.0,
        description="Longest crop of a file, in seconds; longer files are cropped. At least the longest window of "
        "the model config, CLAP's included.",
    )
    random_crop: bool = Field(
        default=True, description="Crop at random places of a file; false: one after the other from its start."
    )
    repeat: PositiveInt = Field(
        default=1, description="How often each crop is stored, each time with other random changes (augment)."
    )
    augment: AugmentConfig | None = Field(
        default=None, description="Changes of the sound before it is tokenized; null: none."
    )
    num_crops: PositiveInt = Field(default=1, description="Largest number of crops per file.")
    clap_batch_size: BatchSize = Field(default=32, description="CLAP windows computed at the same time.")
    num_workers: Workers = Field(default=2, description=_WORKERS)
    seed: TrainingSeed = Field(default=0, description="Seed of the crops.")


class TrainingConfig(Section):
    """The training config; scripts get their section with `require`."""

    clap_rvq_trainer_cfg: ClapRvqTrainerConfig | None = Field(default=None, description="For train_clap_rvq.py.")
    hubert_kmeans_trainer_cfg: HubertKmeansTrainerConfig | None = Field(
        default=None, description="For train_hubert_kmeans.py."
    )
    semantic_trainer_cfg: StageTrainerConfig | None = Field(default=None, description="For train_semantic_stage.py.")
    coarse_trainer_cfg: StageTrainerConfig | None = Field(default=None, description="For train_coarse_stage.py.")
    fine_trainer_cfg: StageTrainerConfig | None = Field(default=None, description="For train_fine_stage.py.")
    data_preprocessor_cfg: DataPreprocessorConfig | None = Field(default=None, description="For preprocess_data.py.")
    _path: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_absent(cls, sections: object) -> object:
        if not isinstance(sections, dict):
            return sections
        return {name: section for name, section in sections.items() if section != {}}

    @model_validator(mode="after")
    def _stage_fits_section(self) -> "TrainingConfig":
        for stage in STAGE_NAMES:
            section: StageTrainerConfig | None = getattr(self, f"{stage}_trainer_cfg")
            if section is not None and section.stage != stage:
                raise ValueError(f"{stage}_trainer_cfg: stage: expected '{stage}', found '{section.stage}'")
        return self


def load_training_config(path: Path | str) -> TrainingConfig:
    """Reads and validates a training config. Raises UserError."""
    path = Path(path)
    config = load_section(path, TrainingConfig)
    config._path = path
    return config


def require(config: TrainingConfig, name: str, kind: type[SectionType]) -> SectionType:
    """Section `name` of a training config. Raises UserError if the file lacks it."""
    section = getattr(config, name)
    if section is None:
        raise UserError(f"{config._path}: section {name} is missing or empty; this script needs it")
    assert isinstance(section, kind)
    return section
