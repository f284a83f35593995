"""Noise with the loudness of a clip, a baseline for distances between sets of clips."""

import torch
from jaxtyping import Float
from torch import Tensor

_ENVELOPE_SECONDS = 0.02


def noise_modulated(wave: Float[Tensor, "samples"], sample_hz: int, rng: torch.Generator) -> Float[Tensor, "samples"]:
    """White noise with the loudness of the wave in steps of 20 ms: its rhythm without its sound."""
    step = round(_ENVELOPE_SECONDS * sample_hz)
    power = torch.nn.functional.avg_pool1d(wave.square()[None], step, ceil_mode=True)[0].sqrt()
    return torch.randn(len(wave), generator=rng) * power.repeat_interleave(step)[: len(wave)]
