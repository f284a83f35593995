"""The discriminators of Vocos (Siuzdak 2023, 2.3), of the vocos package, in any number and width, and their losses."""

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from vocos.discriminators import DiscriminatorP, DiscriminatorR

from open_musiclm.training.backbones.encodec_losses import adversarial_loss, discriminator_loss, feature_matching_loss


class GeneratorLosses(NamedTuple):
    """The losses of the decoder from the discriminators."""

    adversarial: Float[Tensor, ""]
    feature_matching: Float[Tensor, ""]


class Discriminators(nn.Module):
    """Multi-period discriminators (HiFi-GAN) and multi-resolution ones over complex spectrograms (Descript's codec)."""

    def __init__(self, periods: Iterable[int], windows: Iterable[int], channels: int) -> None:
        super().__init__()
        with warnings.catch_warnings():  # the package uses torch's older weight_norm, which works and warns
            warnings.simplefilter("ignore", FutureWarning)
            of_periods = [DiscriminatorP(period) for period in periods]
            of_windows = [DiscriminatorR(window, channels=channels) for window in windows]
        self.discriminators = nn.ModuleList([*of_periods, *of_windows])

    def forward(
        self, waves: Float[Tensor, "batch samples"]
    ) -> tuple[list[Float[Tensor, "batch ..."]], list[list[Float[Tensor, "batch ..."]]]]:
        """The logits and the inner layers of each."""
        results = [discriminator(waves) for discriminator in self.discriminators]
        return [logits for logits, _ in results], [layers for _, layers in results]

    def generator_losses(
        self, decoded: Float[Tensor, "batch samples"], waves: Float[Tensor, "batch samples"]
    ) -> GeneratorLosses:
        """Hinge loss, and distance of inner layers relative to the recorded sound's."""
        logits, layers = self(decoded)
        with torch.no_grad():
            _, layers_of_real = self(waves)
        return GeneratorLosses(adversarial_loss(logits), feature_matching_loss(layers_of_real, layers))


def loss_of_discriminators(
    discriminators: nn.Module, decoded: Float[Tensor, "batch samples"], waves: Float[Tensor, "batch samples"]
) -> Float[Tensor, ""]:
    """The hinge loss that the discriminators themselves are trained by; both waves in one call, for wrapped modules."""
    logits, _ = discriminators(torch.cat((waves, decoded)))
    real, fake = zip(*(part.chunk(2) for part in logits), strict=True)
    return discriminator_loss(real, fake)
