"""Training configs of the backbones: one JSON file each, validated like every config (no torch in here)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from open_musiclm.config.fields import (
    AtMost,
    Layers,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Share,
    Width,
    WindowSeconds,
    accept_renamed_key,
)
from open_musiclm.config.json_files import Section
from open_musiclm.config.training import GradientTrainerConfig

RANDOM_INIT = "random"
_DISCRIMINATOR_WINDOW = 2048  # samples of the longest of the encodec package's discriminators
_BYTES_AND_SPECIAL_TOKENS = 256 + 5
_PATCHES_OF = 256  # frames and mels that CLAP's audio tower cuts into patches
_FEWEST_PATCHES = 4  # of a side in its last stage
_FRONT_END_SAMPLES = {320: 400, 640: 720}  # that MERT's first frame is computed from, by samples of a frame
_MERT_HZ = 16000

# a mel spectrogram of an eighth as many bands, every quarter of it
SpectrogramWindow = Annotated[PositiveInt, Field(ge=32), AtMost(1 << 16, "a whole crop has to hold it")]


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
    crop_seconds: WindowSeconds = Field(default=1.0, description="Length of a training example, in seconds.")
    time_weight: NonNegativeFloat = Field(default=1.0, description="Weight of the L1 loss of the wave.")
    spectrogram_weight: NonNegativeFloat = Field(default=1.0, description="Weight of the mel spectrogram loss.")
    spectrogram_windows: list[SpectrogramWindow] = Field(
        default=[64, 128, 256, 512, 1024, 2048], min_length=1, description="Windows of that loss, in samples."
    )
    adversarial_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the adversarial loss.")
    feature_matching_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the feature matching loss.")
    adversarial_from_step: NonNegativeInt = Field(default=0, description="Step at which the discriminators join.")
    discriminator_filters: Width = Field(default=32, description="Filters of the discriminators' first layers.")
    commitment_weight: NonNegativeFloat = Field(default=3.0, description="Factor of the commitment loss.")
    codebook_decay: Probability = Field(default=0.99, description="Decay of the codebooks' moving averages.")
    dead_code_share: Probability = Field(
        default=0.1, description="A code used less than this share of the average is replaced by a latent of the batch."
    )
    quantizer_dropout: Share = Field(
        default=0.4, description="Share of batches that pass through a random number of codebooks."
    )
    quieter_by_db: NonNegativeFloat = Field(
        default=12.0, description="Crops are randomly made quieter, by at most so many dB."
    )

    @model_validator(mode="after")
    def _some_loss(self) -> "EncodecTrainerConfig":
        if not (self.time_weight or self.spectrogram_weight or self.adversarial):
            raise ValueError(
                "time_weight, spectrogram_weight, adversarial_weight, feature_matching_weight: all are 0, so the "
                "decoder would not be trained"
            )
        return self

    def check_crop(self, sample_hz: int, hop: int) -> None:
        """Raises ValueError if a crop is too short for a frame of `hop` samples or for a spectrogram's window."""
        needed = max(hop, max(self.spectrogram_windows) // 2 + 1)  # windows are centred, their first half is reflected
        if self.adversarial:
            needed = max(needed, _DISCRIMINATOR_WINDOW)
        if round(self.crop_seconds * sample_hz) < needed:
            raise ValueError(
                f"trainer: crop_seconds: {self.crop_seconds} s is shorter than a frame or a loss's window; use at "
                f"least {needed / sample_hz:.4f} s, or shorter spectrogram_windows"
            )

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators at all."""
        return self.adversarial_weight > 0 or self.feature_matching_weight > 0


class ClapArchitecture(Section):
    """The shape of a small CLAP: HTSAT over 64 mels of ten seconds at 48 kHz, RoBERTa over a vocabulary of its own."""

    embedding_dim: Width = Field(default=128, description="Size of the embeddings that text and sound share.")
    vocabulary_size: Annotated[PositiveInt, AtMost(1 << 20, "every token has a row of weights")] = Field(
        default=2500, description="Most tokens of the byte-level BPE vocabulary."
    )
    text_dim: Width = Field(default=192, description="Width of the text tower.")
    text_layers: Layers = Field(default=3, description="Layers of the text tower.")
    text_heads: Layers = Field(default=4, description="Attention heads of the text tower.")
    patch_size: Literal[4, 8, 16] = Field(default=16, description="Side of a spectrogram patch, in frames and mels.")
    audio_dim: Width = Field(default=96, description="Width of the audio tower's first stage; doubles at each.")
    audio_depths: list[Layers] = Field(
        min_length=1, default=[2, 2], description="Layers of each stage of the audio tower."
    )
    audio_heads: list[Layers] = Field(
        min_length=1, default=[4, 8], description="Attention heads of each of those stages."
    )

    @model_validator(mode="after")
    def _shape_fits(self) -> "ClapArchitecture":
        stages, patches = len(self.audio_depths), _PATCHES_OF // self.patch_size
        if len(self.audio_heads) != stages:
            raise ValueError(
                f"audio_heads: expected {stages} numbers, as many as audio_depths, found {len(self.audio_heads)}"
            )
        if patches < _FEWEST_PATCHES * 2 ** (stages - 1):
            raise ValueError(
                f"audio_depths: {stages} stages, each of half as many patches as the one before it, are too many for "
                f"{patches} x {patches} patches of patch_size {self.patch_size}"
            )
        if self.vocabulary_size < _BYTES_AND_SPECIAL_TOKENS:
            raise ValueError(
                f"vocabulary_size: {self.vocabulary_size} is below {_BYTES_AND_SPECIAL_TOKENS}, the bytes and the "
                "special tokens"
            )
        _check_heads("text_heads", self.text_heads, "text_dim", self.text_dim)
        for stage, heads in enumerate(self.audio_heads):
            _check_heads("audio_heads", heads, f"audio_dim of stage {stage}", self.audio_dim * 2**stage)
        return self


class ClapTrainerConfig(BackboneTrainerConfig):
    """Contrastive training on captioned sounds, over the batches of all processes."""

    captions: str = Field(
        default="captions.jsonl", description='JSON lines of {"file": ..., "caption": ...}, within folder.'
    )
    spectrogram_folder: str | None = Field(
        default=None, description="Folder of stored spectrograms; null: computed for every example."
    )
    initial_logit_scale: PositiveFloat = Field(default=10.0, description="Initial factor of the cosines.")
    louder_or_quieter_by_db: NonNegativeFloat = Field(
        default=3.0, description="Spectrograms are randomly made louder or quieter, by at most so many dB."
    )


class MertArchitecture(Section):
    """The shape of a small HuBERT with the real front end's kernels and strides, or with a last one twice as long."""

    feature_projection_norm: bool = Field(
        default=True, description="Normalise each frame between front end and transformer; false keeps loudness."
    )
    feature_dim: Width = Field(default=144, description="Width of the transformer.")
    layers: Layers = Field(default=4, description="Layers of the transformer.")
    heads: Layers = Field(default=4, description="Attention heads of each layer.")
    feed_forward_dim: Width = Field(default=432, description="Width of each layer's feed-forward network.")
    front_end_channels: Width = Field(default=96, description="Channels of the seven convolutions.")
    samples_per_frame: Literal[320, 640] = Field(
        default=320, description="Samples of a frame: at 16 kHz 320 gives 50 frames a second, 640 gives 25."
    )
    position_kernel: Width = Field(default=64, description="Width of the position convolution, in frames.")
    position_groups: PositiveInt = Field(default=8, description="Groups of the position convolution.")
    dropout: Probability = Field(default=0.05, description="Dropout of hidden states; attention weights have none.")

    @model_validator(mode="after")
    def _shape_fits(self) -> "MertArchitecture":
        _check_heads("heads", self.heads, "feature_dim", self.feature_dim)
        _check_heads("position_groups", self.position_groups, "feature_dim", self.feature_dim)
        return self


class MertTrainerConfig(BackboneTrainerConfig):
    """Masked prediction of codec tokens and reconstruction of a constant-Q spectrogram (Li et al. 2023, 3)."""

    init: str = Field(
        default=RANDOM_INIT,
        description="First weights: random, or the directory of a MERT of this architecture (config.json and "
        "model.safetensors).",
    )
    crop_seconds: WindowSeconds = Field(default=5.0, description="Length of a training example, in seconds.")
    mask_start_probability: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.06, description="Share of frames at which a masked span begins."
    )
    mask_span: PositiveInt = Field(default=10, description="Length of a masked span, in frames.")
    pitches: Annotated[PositiveInt, AtMost(240, "twenty octaves")] = Field(
        default=84, description="Bins of the constant-Q spectrogram, semitones from 55 Hz."
    )
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

    @model_validator(mode="after")
    def _crop_holds_frames(self) -> "MertTrainingConfig":
        needed = _FRONT_END_SAMPLES[self.architecture.samples_per_frame]
        if round(self.trainer.crop_seconds * _MERT_HZ) < needed:
            raise ValueError(
                f"trainer: crop_seconds: {self.trainer.crop_seconds} s is shorter than a frame of MERT; use at least "
                f"{needed / _MERT_HZ} s"
            )
        return self


def _check_heads(key: str, heads: int, width_key: str, width: int) -> None:
    if width % heads:
        raise ValueError(f"{key}: {heads} does not divide {width_key} {width}")
