"""The interface of a codec: rates, codebooks, and the three steps from wave to wave."""

import math
from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn


class CodecModel(nn.Module, ABC):
    """A codec of mono waves at `sample_hz` with frames of `hop` samples and residual codebooks.

    `latent_dim` is the size of the vectors that codes stand for, `bandwidths` the kbps that it was made for,
    `lookahead_frames` how many later frames the sound of a frame depends on.
    """

    sample_hz: int
    hop: int
    codebooks: int
    codebook_size: int
    latent_dim: int
    bandwidths: tuple[float, ...]
    lookahead_frames: int = 0

    @abstractmethod
    def encode(self, waves: Float[Tensor, "batch samples"], quantizers: int) -> Int[Tensor, "batch time quantizers"]:
        """Codes of the first `quantizers` codebooks, coarsest first; the last frame may be partial."""

    @abstractmethod
    def latents(self, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch latent_dim time"]:
        """The sum of the code vectors of the first codebooks."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "batch latent_dim time"]) -> Float[Tensor, "batch samples"]:
        """time * hop samples. Raises UserError if the codec has no decoder of its own."""

    def check_decoder(self) -> None:
        """Raises UserError if the codec has no decoder of its own."""

    def quantizers_at(self, bandwidth: float) -> int:
        """How many codebooks fit into `bandwidth` kbps."""
        of_one = math.log2(self.codebook_size) * (self.sample_hz // self.hop) / 1000
        return math.floor(bandwidth / of_one + 1e-6)
