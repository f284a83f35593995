"""Training configs of the spectral codec and of Vocos decoders: one JSON file each (no torch in here)."""

from pydantic import Field, model_validator

from open_musiclm.config.backbones import BackboneTrainerConfig
from open_musiclm.config.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Probability,
    Quantizers,
    WindowSeconds,
    Width,
)


class SpectralCodecTrainerConfig(BackboneTrainerConfig):
    """Training of a spectral codec's codes: the spectrogram is to be reconstructed from them."""

    crop_seconds: WindowSeconds = Field(default=2.0, description="Length of a training example, in seconds.")
    commitment_weight: NonNegativeFloat = Field(default=0.25, description="Factor of the commitment loss.")
    codebook_decay: Probability = Field(default=0.99, description="Decay of the codebooks' moving averages.")
    dead_code_share: Probability = Field(
        default=0.1, description="A code used less than this share of the average is replaced by a latent of the batch."
    )
    quieter_by_db: NonNegativeFloat = Field(default=12.0, description="Crops are made up to so many dB quieter.")
