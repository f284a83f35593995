"""CLAP tokens along time: what is asked for may change while the music goes on."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

ClapTokens = Int[Tensor, "batch 1 quantizers"]


@dataclass(frozen=True)
class ClapTrack:
    """A batch's CLAP tokens: `tokens[i]` from tick `starts[i]` on; before the first start those are the first ones."""

    starts: Sequence[int]
    tokens: Sequence[ClapTokens]

    @classmethod
    def constant(cls, tokens: ClapTokens) -> "ClapTrack":
        """The same all the time."""
        return cls([0], [tokens])

    def at(self, tick: int) -> ClapTokens:
        """The tokens that count from `tick` on until the next start."""
        return self.tokens[max(bisect_right(self.starts, tick) - 1, 0)]


def tokens_along(
    steps: Sequence[Sequence[tuple[float, Int[Tensor, "1 quantizers"]]]],
) -> list[tuple[float, ClapTokens]]:
    """The steps of several requests, (second, tokens) each, as steps of a batch."""
    starts = sorted({start for own in steps for start, _ in own})
    return [(start, torch.stack([_last(own, start) for own in steps])) for start in starts]


def _last(steps: Sequence[tuple[float, Tensor]], second: float) -> Tensor:
    return [tokens for start, tokens in steps if start <= second][-1]
