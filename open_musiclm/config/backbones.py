"""Training configs of the backbones: one JSON file each, validated like every config (no torch in here)."""

from typing import Annotated, Literal

from pydantic import Field

from open_musiclm.config import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Share,
    TrainerConfig,
    TrainingPrecision,
)
from open_musiclm.config.json_files import Section


class BackboneTrainerConfig(TrainerConfig):
    """What the backbone trainers share: the learning rate warms up, stays, and falls to zero along a cosine.

    `constant_share` is the share of all steps before it begins to fall. `precision` is that of the networks' products
    (weights, losses and optimizer are float32); auto is bfloat16 where the device has units for it.
    """

    lr: PositiveFloat
    lr_warmup: NonNegativeInt = 0
    constant_share: Share = 0.4
    wd: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    valid_frac: Probability = 0.05
    precision: TrainingPrecision = "auto"


class EncodecTrainerConfig(BackboneTrainerConfig):
    """EnCodec's training (EnCodec, 3.4): weights are shares of the gradient, 0 leaves a loss out.

    The discriminators join at `adversarial_from_step`. With probability `quantizer_dropout` a batch passes through
    fewer codebooks than all. Crops are made up to `quieter_by_db` quieter at random.
    """

    crop_seconds: PositiveFloat = 1.0
    time_weight: NonNegativeFloat = 1.0
    spectrogram_weight: NonNegativeFloat = 1.0
    spectrogram_windows: list[PositiveInt] = Field(default=[64, 128, 256, 512, 1024, 2048])
    adversarial_weight: NonNegativeFloat = 0.0
    feature_matching_weight: NonNegativeFloat = 0.0
    adversarial_from_step: NonNegativeInt = 0
    discriminator_filters: PositiveInt = 32
    commitment_weight: NonNegativeFloat = 3.0
    codebook_decay: Probability = 0.99
    dead_code_share: Probability = 0.1
    quantizer_dropout: Share = 0.4
    quieter_by_db: NonNegativeFloat = 12.0

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators at all."""
        return self.adversarial_weight > 0 or self.feature_matching_weight > 0


class ClapArchitecture(Section):
    """The shape of a small CLAP: HTSAT over 64 mels of ten seconds at 48 kHz, RoBERTa over a vocabulary of its own."""

    embedding_dim: PositiveInt = 128
    vocabulary_size: PositiveInt = 2500
    text_dim: PositiveInt = 192
    text_layers: PositiveInt = 3
    text_heads: PositiveInt = 4
    patch_size: Literal[4, 8, 16] = 16
    audio_dim: PositiveInt = 96
    audio_depths: list[PositiveInt] = Field(default=[2, 2])
    audio_heads: list[PositiveInt] = Field(default=[4, 8])


class ClapTrainerConfig(BackboneTrainerConfig):
    """Contrastive training on the sounds that `captions`, JSON lines, describes; `folder` is their folder.

    Each sound is told apart from the captions of all processes' batches: `batch_size` times their number.

    Spectrograms are computed once and kept in `spectrogram_folder`, or without it computed for every example.
    """

    captions: str = "captions.jsonl"
    spectrogram_folder: str | None = None
    initial_logit_scale: PositiveFloat = 10.0
    louder_or_quieter_by_db: NonNegativeFloat = 3.0


class MertArchitecture(Section):
    """The shape of a small HuBERT with the real front end's kernels and strides, or with a last one twice as long:
    half as many tokens for the stages.

    `dropout` is that of hidden states; attention weights have none. With `onsets` the second layer's features start as
    loudness of bands and strength of onsets (`onset_bank.py`), and loudness is not normalised away before them.
    """

    onsets: bool = False
    feature_dim: PositiveInt = 144
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward_dim: PositiveInt = 432
    front_end_channels: PositiveInt = 96
    samples_per_frame: Literal[320, 640] = 320
    position_kernel: PositiveInt = 64
    position_groups: PositiveInt = 8
    dropout: Probability = 0.05


class MertTrainerConfig(BackboneTrainerConfig):
    """Masked prediction of codec tokens and reconstruction of a constant-Q spectrogram (MERT, 3).

    `heard_weight` is that of the loss over frames that are not masked: 0 in MERT, 1 - alpha in HuBERT (Hsu et al.
    2021, 2.2). With it, features tell what sounds after few steps; without, they first tell what surrounds a frame.
    """

    crop_seconds: PositiveFloat = 5.0
    mask_start_probability: Annotated[float, Field(gt=0, le=1)] = 0.06
    mask_span: PositiveInt = 10
    pitches: PositiveInt = 84
    pitch_weight: NonNegativeFloat = 1.0
    heard_weight: NonNegativeFloat = 0.0


class ClapTrainingConfig(Section):
    """The file that train_clap reads."""

    architecture: ClapArchitecture
    trainer: ClapTrainerConfig


class MertTrainingConfig(Section):
    """The file that train_mert reads."""

    architecture: MertArchitecture
    trainer: MertTrainerConfig
