"""Distances of spectrograms at several window lengths: what decoders are trained by and measured with."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

_MELS = {256: 32, 512: 48, 1024: 80, 2048: 120}
_MEL_FLOOR = 1e-4
_MAGNITUDE_FLOOR = 1e-4  # for each root of a window's length


class Distances(NamedTuple):
    """Means over the window lengths, of each example.

    `mel` is the L1 distance of log-mel spectrograms in nats; `convergence` and `magnitude` are the spectral convergence
    and the L1 distance of log magnitudes in nats of multi-resolution STFTs (Yamamoto et al. 2020).
    """

    mel: Float[Tensor, "batch"]
    convergence: Float[Tensor, "batch"]
    magnitude: Float[Tensor, "batch"]


class SpectralDistance(nn.Module):
    """Over Hann windows of 256 to 2048 samples, each a quarter further, and 32 to 120 mel bands (Slaney's)."""

    def __init__(self, sample_hz: int) -> None:
        super().__init__()
        for length, mels in _MELS.items():
            bank = melscale_fbanks(
                length // 2 + 1, 0, sample_hz / 2, mels, sample_hz, norm="slaney", mel_scale="slaney"
            )
            self.register_buffer(f"bank{length}", bank, persistent=False)
            self.register_buffer(f"window{length}", torch.hann_window(length), persistent=False)

    def forward(self, decoded: Float[Tensor, "batch samples"], original: Float[Tensor, "batch samples"]) -> Distances:
        """How far decoded waves are from the original ones; at least 1025 samples are needed."""
        each = [self._at(length, decoded, original) for length in _MELS]
        return Distances(*(torch.stack(values).mean(0) for values in zip(*each, strict=True)))

    def _at(
        self, length: int, decoded: Float[Tensor, "batch samples"], original: Float[Tensor, "batch samples"]
    ) -> Distances:
        window, bank = getattr(self, f"window{length}"), getattr(self, f"bank{length}")
        found, expected = (
            torch.stft(wave, length, length // 4, window=window, return_complex=True).abs().transpose(1, 2)
            for wave in (decoded, original)
        )
        mel = _log_distance(found @ bank, expected @ bank, _MEL_FLOOR)
        error, size = (found - expected).flatten(1).norm(dim=1), expected.flatten(1).norm(dim=1)
        return Distances(
            mel, error / size.clamp(min=1e-3), _log_distance(found, expected, _MAGNITUDE_FLOOR * length**0.5)
        )


def _log_distance(
    found: Float[Tensor, "batch time bands"], expected: Float[Tensor, "batch time bands"], floor: float
) -> Float[Tensor, "batch"]:
    return ((found + floor).log() - (expected + floor).log()).abs().mean(dim=(1, 2))
