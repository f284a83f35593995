"""Training configs of the spectral codec and of Vocos decoders: one JSON file each (no torch in here)."""

from typing import Literal

from pydantic import Field, model_validator

from open_musiclm.config.backbones import BackboneTrainerConfig, SpectrogramWindow
from open_musiclm.config.fields import (
    Layers,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Probability,
    Quantizers,
    Width,
    WindowSeconds,
)
from open_musiclm.config.json_files import Section
from open_musiclm.errors import UserError

_LONGEST_WINDOW, _LOWEST_HZ = 2048, 8000  # samples of the longest spectrogram, and the lowest rate it is meant for


class SpectralCodecTrainerConfig(BackboneTrainerConfig):
    """Training of a spectral codec: the spectrogram is reconstructed from the codes."""

    init: Literal["random", "principal_components"] = Field(
        default="random",
        description="First weights: random, or linear maps to the principal components of the first examples' frames.",
    )
    crop_seconds: WindowSeconds = Field(default=2.0, description="Length of a training example, in seconds.")
    commitment_weight: NonNegativeFloat = Field(default=0.25, description="Factor of the commitment loss.")
    codebook_decay: Probability = Field(default=0.99, description="Decay of the codebooks' moving averages.")
    dead_code_share: Probability = Field(
        default=0.1, description="A code used less than this share of the average is replaced by a latent of the batch."
    )
    quieter_by_db: NonNegativeFloat = Field(
        default=12.0, description="Crops are randomly made quieter, by at most so many dB."
    )


class VocosShape(Section):
    """The shape of a Vocos decoder (Siuzdak 2023)."""

    quantizers: list[Quantizers] = Field(
        min_length=1,
        max_length=64,
        description="Numbers of codebooks that it decodes, ascending: the coarse ones, all, or both.",
    )
    dim: Width = Field(default=384, description="Width of the ConvNeXt blocks.")
    intermediate_dim: Width = Field(default=1152, description="Width inside the blocks.")
    layers: Layers = Field(default=8, description="Blocks.")
    n_fft: Width = Field(default=1280, description="Window of the inverse STFT, in samples.")
    head_hop: PositiveInt = Field(
        default=320, description="Samples from one of its frames to the next; must divide those of a codec frame."
    )


class VocosTrainerConfig(BackboneTrainerConfig):
    """Training of a Vocos on the codes of a frozen codec: spectral losses, and discriminators once they join."""

    codes_folder: str | None = Field(
        default=None, description="Folder for the codes of the sound files, computed once; needed without token_store."
    )
    token_store: str | None = Field(
        default=None,
        description="Folder of preprocessed tokens of `folder`, used in place of codes_folder; null: none.",
    )
    crop_seconds: WindowSeconds = Field(default=1.0, description="Length of a training example, in seconds.")
    mel_weight: NonNegativeFloat = Field(default=5.0, description="Weight of the log-mel distance.")
    magnitude_weight: NonNegativeFloat = Field(default=2.0, description="Weight of the STFTs' log-magnitude distance.")
    convergence_weight: NonNegativeFloat = Field(default=1.0, description="Weight of the STFTs' spectral convergence.")
    adversarial_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the adversarial hinge loss.")
    feature_matching_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the feature matching loss.")
    adversarial_from_step: NonNegativeInt = Field(default=0, description="Step at which the discriminators join.")
    discriminator_periods: list[PositiveInt] = Field(
        default=[2, 3, 5, 7, 11], max_length=16, description="Periods of the multi-period discriminators, in samples."
    )
    discriminator_windows: list[SpectrogramWindow] = Field(
        default=[2048, 1024, 512],
        max_length=16,
        description="Windows of the multi-resolution discriminators, in samples.",
    )
    discriminator_channels: Width = Field(default=32, description="Channels of the multi-resolution discriminators.")
    discriminator_examples: PositiveInt | None = Field(
        default=None, description="Examples of a batch that the discriminators see; null: all."
    )

    @model_validator(mode="after")
    def _losses(self) -> "VocosTrainerConfig":
        if not (self.mel_weight or self.magnitude_weight or self.convergence_weight or self.adversarial):
            raise ValueError("all loss weights are 0, so nothing would be trained")
        if self.adversarial and not (self.discriminator_periods or self.discriminator_windows):
            raise ValueError("discriminator_periods, discriminator_windows: both are empty; set adversarial_weight 0")
        if round(self.crop_seconds * _LOWEST_HZ) < _LONGEST_WINDOW:
            raise ValueError(f"crop_seconds: {self.crop_seconds} s is shorter than a spectrogram's window; use 0.3 s")
        return self

    def check_crop(self, samples: int) -> None:
        """Raises UserError if a crop of so many samples is too short for a discriminator."""
        if not self.adversarial:
            return
        for key, needed in (
            ("discriminator_windows", max(self.discriminator_windows, default=0) // 2 + 1),  # their half is reflected
            ("discriminator_periods", max(self.discriminator_periods, default=0)),
        ):
            if samples < needed:
                raise UserError(
                    f"trainer: {key}: the largest, {max(getattr(self, key))}, needs crops of {needed} samples or more, "
                    f"but crop_seconds {self.crop_seconds} gives {samples}; raise crop_seconds, or leave that one out"
                )

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators at all."""
        return self.adversarial_weight > 0 or self.feature_matching_weight > 0
