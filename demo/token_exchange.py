"""Acoustic tokens that are not quite right, as those of a stage are not: some of them are those of another time."""

import torch
from jaxtyping import Int
from torch import Tensor


def exchanged(
    codes: Int[Tensor, "time quantizers"], share: float, reach: int, generator: torch.Generator
) -> Int[Tensor, "time quantizers"]:
    """Codes of which a `share`, at random, are those of the same codebook up to `reach` time steps away."""
    steps = torch.arange(len(codes))[:, None] + torch.randint(-reach, reach + 1, codes.shape, generator=generator)
    elsewhere = codes.gather(0, steps.clamp(0, len(codes) - 1))
    return torch.where(torch.rand(codes.shape, generator=generator) < share, elsewhere, codes)
