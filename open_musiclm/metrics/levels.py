"""Faults of level in a wave: clipped samples and silence."""

from jaxtyping import Float
from torch import Tensor

FULL_SCALE = 0.999
CLIPPED_RUN = 3  # samples at full scale in a row: fewer may be a peak
SILENT_DB = -60.0
_FRAMES_PER_SECOND = 10


def clipped_share(wave: Float[Tensor, "samples"]) -> float:
    """The share (0 to 1) of samples in runs of three or more at full scale, on one side."""
    if len(wave) < CLIPPED_RUN:
        return 0.0
    clipped = 0
    for side in (wave >= FULL_SCALE, wave <= -FULL_SCALE):
        full = side.unfold(0, CLIPPED_RUN, 1).all(1)
        in_run = side.clone().zero_()
        for offset in range(CLIPPED_RUN):
            in_run[offset : offset + len(full)] |= full
        clipped += int(in_run.sum())
    return clipped / len(wave)


def silent_share(wave: Float[Tensor, "samples"], sample_hz: int) -> float:
    """The share (0 to 1) of tenths of a second whose RMS is below -60 dB of full scale."""
    frame = max(min(round(sample_hz / _FRAMES_PER_SECOND), len(wave)), 1)
    if len(wave) == 0:
        return 1.0
    power = wave[: len(wave) // frame * frame].double().square().unflatten(0, (-1, frame)).mean(1)
    return float((power < 10 ** (SILENT_DB / 10)).double().mean())
