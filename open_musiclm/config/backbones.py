"""Training configs of the backbones: one JSON file each, validated like every config (no torch in here)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from open_musiclm.config.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Share,
    accept_renamed_key,
)
from open_musiclm.config.json_files import Section
from open_musiclm.config.training import GradientTrainerConfig

RANDOM_INIT = "random"


class BackboneTrainerConfig(GradientTrainerConfig):
    """What the backbone trainers share."""

    constant_share: Share = Field(
        default=0.4, description="Share of all steps before the rate falls to zero along a cosine; 1: it never falls."
    )


class EncodecTrainerConfig(BackboneTrainerConfig):
    """EnCodec's training (Défossez et al. 2022, 3.4): loss weights are shares of the gradient, 0 leaves a loss out."""

    init: Literal["random", "transform"] = Field(
        default="random",
        description="First weights: random, or a linear transform codec fitted to the first batch.",
    )
    crop_seconds: PositiveFloat = Field(default=1.0, description="Length of a training example, in seconds.")
    time_weight: NonNegativeFloat = Field(default=1.0, description="Weight of the L1 loss of the wave.")
    spectrogram_weight: NonNegativeFloat = Field(default=1.0, description="Weight of the mel spectrogram loss.")
    spectrogram_windows: list[PositiveInt] = Field(
        default=[64, 128, 256, 512, 1024, 2048], description="Windows of that loss, in samples."
    )
    adversarial_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the adversarial loss.")
    feature_matching_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the feature matching loss.")
    adversarial_from_step: NonNegativeInt = Field(default=0, description="Step at which the discriminators join.")
    discriminator_filters: PositiveInt = Field(default=32, description="Filters of the discriminators' first layers.")
    commitment_weight: NonNegativeFloat = Field(default=3.0, description="Factor of the commitment loss.")
    codebook_decay: Probability = Field(default=0.99, description="Decay of the codebooks' moving averages.")
    dead_code_share: Probability = Field(
        default=0.1, description="A code used less than this share of the average is replaced by a latent of the batch."
    )
    quantizer_dropout: Share = Field(
        default=0.4, description="Share of batches that pass through a random number of codebooks."
    )
    quieter_by_db: NonNegativeFloat = Field(default=12.0, description="Crops are made up to so many dB quieter.")

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators at all."""
        return self.adversarial_weight > 0 or self.feature_matching_weight > 0


class ClapArchitecture(Section):
    """The shape of a small CLAP: HTSAT over 64 mels of ten seconds at 48 kHz, RoBERTa over a vocabulary of its own."""

    embedding_dim: PositiveInt = Field(default=128, description="Size of the embeddings that text and sound share.")
    vocabulary_size: PositiveInt = Field(default=2500, description="Most tokens of the byte-level BPE vocabulary.")
    text_dim: PositiveInt = Field(default=192, description="Width of the text tower.")
    text_layers: PositiveInt = Field(default=3, description="Layers of the text tower.")
    text_heads: PositiveInt = Field(default=4, description="Attention heads of the text tower.")
    patch_size: Literal[4, 8, 16] = Field(default=16, description="Side of a spectrogram patch, in frames and mels.")
    audio_dim: PositiveInt = Field(default=96, description="Width of the audio tower's first stage; doubles at each.")
    audio_depths: list[PositiveInt] = Field(default=[2, 2], description="Layers of each stage of the audio tower.")
    audio_heads: list[PositiveInt] = Field(default=[4, 8], description="Attention heads of each of those stages.")


class ClapTrainerConfig(BackboneTrainerConfig):
    """Contrastive training on captioned sounds, each told apart from the captions of all processes' batches."""

    captions: str = Field(
        default="captions.jsonl", description='JSON lines of {"file": ..., "caption": ...}, within folder.'
    )
    spectrogram_folder: str | None = Field(
        default=None, description="Folder that spectrograms are kept in; null: computed for every example."
    )
    initial_logit_scale: PositiveFloat = Field(default=10.0, description="Factor of the cosines at the beginning.")
    louder_or_quieter_by_db: NonNegativeFloat = Field(
        default=3.0, description="Spectrograms are made up to so many dB louder or quieter."
    )


class MertArchitecture(Section):
    """The shape of a small HuBERT with the real front end's kernels and strides, or with a last one twice as long."""

    feature_projection_norm: bool = Field(
        default=True, description="Normalise each frame between front end and transformer; false keeps loudness."
    )
    feature_dim: PositiveInt = Field(default=144, description="Width of the transformer.")
    layers: PositiveInt = Field(default=4, description="Layers of the transformer.")
    heads: PositiveInt = Field(default=4, description="Attention heads of each layer.")
    feed_forward_dim: PositiveInt = Field(default=432, description="Width of each layer's feed-forward network.")
    front_end_channels: PositiveInt = Field(default=96, description="Channels of the seven convolutions.")
    samples_per_frame: Literal[320, 640] = Field(
        default=320, description="Samples of a frame: at 16 kHz 320 gives 50 frames a second, 640 gives 25."
    )
    position_kernel: PositiveInt = Field(default=64, description="Width of the position convolution, in frames.")
    position_groups: PositiveInt = Field(default=8, description="Groups of the position convolution.")
    dropout: Probability = Field(default=0.05, description="Dropout of hidden states; attention weights have none.")


class MertTrainerConfig(BackboneTrainerConfig):
    """Masked prediction of codec tokens and reconstruction of a constant-Q spectrogram (Li et al. 2023, 3)."""

    init: str = Field(
        default=RANDOM_INIT,
        description="First weights: random, or the directory of a MERT of this architecture (config.json and "
        "model.safetensors).",
    )
    crop_seconds: PositiveFloat = Field(default=5.0, description="Length of a training example, in seconds.")
    mask_start_probability: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.06, description="Share of frames at which a masked span begins."
    )
    mask_span: PositiveInt = Field(default=10, description="Length of a masked span, in frames.")
    pitches: PositiveInt = Field(default=84, description="Bins of the constant-Q spectrogram, semitones from 55 Hz.")
    pitch_weight: NonNegativeFloat = Field(default=1.0, description="Weight of the constant-Q loss.")
    unmasked_weight: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the loss over frames that are not masked: 0 in MERT, 1 - alpha in HuBERT (Hsu et al. "
        "2021, 2.2).",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, section: object) -> object:
        return accept_renamed_key(section, "heard_weight", "unmasked_weight")


class ClapTrainingConfig(Section):
    """The file that train_clap reads."""

    architecture: ClapArchitecture = Field(description="Shape of a new model.")
    trainer: ClapTrainerConfig = Field(description="How it is trained.")


class MertTrainingConfig(Section):
    """The file that train_mert reads."""

    architecture: MertArchitecture = Field(description="Shape of the model.")
    trainer: MertTrainerConfig = Field(description="How it is trained.")
