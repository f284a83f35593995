"""Power in bands of equal musical steps, for pictures and the demo's classifier."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_NOTHING = 1e-12


def pitch_bands(
    wave: Float[Tensor, "samples"],
    sample_hz: int,
    window: int,
    hop: int,
    bands: int,
    lowest_hz: float,
    highest_hz: float,
) -> Float[Tensor, "bands time"]:
    """Decibels of each band, the lowest first, in windows centred on every `hop`-th sample."""
    spectrum = torch.stft(
        wave.float(), window, hop, window=torch.hann_window(window), pad_mode="constant", return_complex=True
    )
    edges = torch.logspace(math.log10(lowest_hz), math.log10(highest_hz), bands + 1, dtype=torch.float64)
    places = edges / sample_hz * window + 0.5  # bin b reaches from b - 1/2 to b + 1/2
    below = places.long().clamp(max=window // 2)
    share = (places - below)[:, None]
    upto = torch.nn.functional.pad(spectrum.abs().square().double().cumsum(0), (0, 0, 1, 0))
    at_edges = upto[below] * (1 - share) + upto[below + 1] * share
    return 10 * (at_edges[1:] - at_edges[:-1]).clamp_min(_NOTHING).log10().float()
