"""Simulates the errors of a stage: some acoustic tokens are replaced by those of another time."""

import torch
from jaxtyping import Int
from torch import Tensor


def corrupted(
    codes: Int[Tensor, "time quantizers"], share: float, reach: int, rng: torch.Generator
) -> Int[Tensor, "time quantizers"]:
    """The codes with a random `share` of them replaced by one of the same codebook up to `reach` time steps away.

    Each of these steps within the clip is equally likely.
    """
    steps = torch.arange(len(codes))[:, None]
    first, last = (steps - reach).clamp(min=0), (steps + reach).clamp(max=len(codes) - 1)
    drawn = torch.rand(codes.shape, generator=rng, dtype=torch.float64) * (last - first + 1)
    elsewhere = codes.gather(0, first + drawn.long())
    return torch.where(torch.rand(codes.shape, generator=rng) < share, elsewhere, codes)
