"""Reconstruction metrics of a codec: SI-SDR and log-spectral distance, both in dB."""

import torch
from jaxtyping import Float
from torch import Tensor

_SMALLEST_POWER = 1e-9
_WINDOW, _HOP = 1024, 256  # samples
_FLOOR_DB = 60.0


def si_sdr(decoded: Float[Tensor, "batch samples"], original: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch"]:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019): higher is better, at 0 dB the error is as
    strong as the signal."""
    scale = (decoded * original).sum(-1) / (original.square().sum(-1) + _SMALLEST_POWER)
    target = scale[:, None] * original
    error = (decoded - target).square().sum(-1)
    return 10 * ((target.square().sum(-1) + _SMALLEST_POWER) / (error + _SMALLEST_POWER)).log10()


def log_spectral_distance(
    decoded: Float[Tensor, "batch samples"], original: Float[Tensor, "batch samples"]
) -> Float[Tensor, "batch"]:
    """Log-spectral distance in dB (Gray and Markel 1976): the root mean square over frequencies of the difference of
    log power spectra, averaged over Hann windows of 1024 samples, one every 256. Lower is better.

    Power more than 60 dB below the loudest bin of the original is raised to that floor.
    """
    powers = [_power(wave) for wave in (decoded, original)]
    floor = powers[1].amax(dim=(1, 2), keepdim=True) * 10 ** (-_FLOOR_DB / 10) + _SMALLEST_POWER
    left, right = (10 * power.maximum(floor).log10() for power in powers)
    return (left - right).square().mean(dim=1).sqrt().mean(dim=1)


def _power(wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frequencies frames"]:
    window = torch.hann_window(_WINDOW, device=wave.device)
    return torch.stft(wave, _WINDOW, _HOP, window=window, return_complex=True).abs().square()
