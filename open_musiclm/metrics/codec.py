"""How far a decoded wave is from the original: SI-SDR and log-spectral distance, both in dB."""

import torch
from jaxtyping import Float
from torch import Tensor

_NOTHING = 1e-9
_WINDOW, _HOP = 1024, 256


def si_sdr(decoded: Float[Tensor, "batch samples"], original: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch"]:
    """Scale-invariant signal to distortion ratio (Le Roux et al. 2019); 0 dB is as much error as signal."""
    scale = (decoded * original).sum(-1) / (original.square().sum(-1) + _NOTHING)
    target = scale[:, None] * original
    error = (decoded - target).square().sum(-1)
    return 10 * ((target.square().sum(-1) + _NOTHING) / (error + _NOTHING)).log10()


def log_spectral_distance(
    decoded: Float[Tensor, "batch samples"], original: Float[Tensor, "batch samples"], floor_db: float = 60.0
) -> Float[Tensor, "batch"]:
    """Root mean square over frequencies of the difference of log power spectra, mean over frames of 1024 samples.

    What lies `floor_db` below the loudest bin of the original counts as being there.
    """
    powers = [_power(wave) for wave in (decoded, original)]
    floor = powers[1].amax(dim=(1, 2), keepdim=True) * 10 ** (-floor_db / 10) + _NOTHING
    left, right = (10 * power.maximum(floor).log10() for power in powers)
    return (left - right).square().mean(dim=1).sqrt().mean(dim=1)


def _power(wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frequencies frames"]:
    window = torch.hann_window(_WINDOW, device=wave.device)
    return torch.stft(wave, _WINDOW, _HOP, window=window, return_complex=True).abs().square()
