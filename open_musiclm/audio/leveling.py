"""New sound brought to the loudness of what is around it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.loudness import Levels, levels_of

AROUND_SECONDS = 3.0  # of each side: so much of it counts
MOST_GAIN_DB = 12.0  # up or down
_FEWEST_SECONDS = 0.4  # a block of BS.1770; the loudness of less is undefined
_BLOCK_SECONDS = 10


def leveled(
    new: Float[Tensor, "new"],
    before: Float[Tensor, "channels before"],
    after: Float[Tensor, "channels after"],
    sample_hz: int,
) -> Float[Tensor, "new"]:
    """`new` with the gain that brings its loudness, where it is in every channel, to that of the sound around it.

    Where the sound before and the sound after differ, the gain goes from one to the other, linearly in dB; a side that
    is silent or missing does not count. No gain brings a peak above -1 dBTP.
    """
    around, own = round(AROUND_SECONDS * sample_hz), _levels(new.expand(len(before), -1), sample_hz)
    gains = [_gain_db(own, side, sample_hz) for side in (before[:, -around:], after[:, :around])]
    known = [gain for gain in gains if gain is not None]
    if not known:
        return new
    first, last = (known[0] if gain is None else gain for gain in gains)
    decibels = torch.linspace(first, last, len(new), dtype=torch.float64)
    return (new * 10 ** (decibels / 20)).to(new.dtype)


def _gain_db(own: Levels, side: Float[Tensor, "channels side"], sample_hz: int) -> float | None:
    if side.shape[1] < _FEWEST_SECONDS * sample_hz:
        return None
    loudness = _levels(side, sample_hz).loudness
    if -math.inf in (loudness, own.loudness):
        return None
    return min(max(20 * math.log10(own.gain_to(loudness)), -MOST_GAIN_DB), MOST_GAIN_DB)


def _levels(wave: Float[Tensor, "channels wave"], sample_hz: int) -> Levels:
    return levels_of(wave.split(_BLOCK_SECONDS * sample_hz, dim=1), sample_hz)
