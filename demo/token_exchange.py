"""Simulates the errors of a stage: some acoustic tokens are replaced by those of another time."""

import torch
from jaxtyping import Int
from torch import Tensor


def exchanged(
    codes: Int[Tensor, "time quantizers"], share: float, reach: int, rng: torch.Generator
) -> Int[Tensor, "time quantizers"]:
    """The codes with a random `share` of them replaced by one of the same codebook up to `reach` time steps away."""
    steps = torch.arange(len(codes))[:, None] + torch.randint(-reach, reach + 1, codes.shape, generator=rng)
    elsewhere = codes.gather(0, steps.clamp(0, len(codes) - 1))
    return torch.where(torch.rand(codes.shape, generator=rng) < share, elsewhere, codes)
