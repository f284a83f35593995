"""Level of a wave: RMS, loudness (ITU-R BS.1770-4, in LUFS) and true peak, measured block by block."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torchaudio.functional import highpass_biquad, treble_biquad

from open_musiclm.audio.resampling import resample

PEAK_LIMIT_DB = -1.0
_SUB_BLOCKS_PER_SECOND = 10  # blocks of 400 ms, a new one every 100 ms
_SUB_BLOCKS_PER_BLOCK = 4
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_OVERSAMPLING = 4
_HEADROOM = 16.0  # of peaks, since torchaudio's filters clip at 1
_LEAD_SECONDS = 1  # of sound before a block, after which the filters have settled
_EDGE = 256  # samples at the end of a block, whose interpolation needs those of the next one
_LOWEST_SHELF_HZ = 4000  # of the sample rate: below it there is hardly any sound that the shelf would raise


@dataclass(frozen=True)
class Levels:
    """RMS and true peak (amplitudes, 1 is full scale), and loudness in LUFS, -inf for silence."""

    rms: float
    peak: float
    loudness: float

    def gain_to(self, loudness: float) -> float:
        """The factor that brings the wave to `loudness`, or less far where its peak would pass -1 dBTP.

        It is 1 for silence.
        """
        if self.peak == 0 or self.loudness == -math.inf:
            return 1.0
        return min(_amplitude(loudness - self.loudness), _amplitude(PEAK_LIMIT_DB) / self.peak)


def levels_of(blocks: Iterable[Float[Tensor, "*channels _"]], sample_hz: int) -> Levels:
    """The levels of a wave [samples] or [channels, samples] that comes in blocks of any length.

    RMS and peak are over all channels. Loudness is of the sum of their powers: every channel has the weight 1.
    """
    step, samples, squares, peak = round(sample_hz / _SUB_BLOCKS_PER_SECOND), 0, 0.0, 0.0
    lead, rest = torch.zeros(0), torch.zeros(0)
    powers: list[Tensor] = []
    for block in blocks:
        wave = torch.atleast_2d(block.detach().to("cpu", torch.float32))
        if wave.shape[1] == 0:
            continue
        samples += wave.numel()
        squares += float(wave.double().square().sum())
        with_lead = torch.cat((lead, wave), dim=-1)
        before, end = lead.shape[-1], with_lead.shape[1] - _EDGE
        peak = max(peak, _true_peak(with_lead, sample_hz, before - _EDGE, end))
        rest = torch.cat((rest, _weighted(with_lead, sample_hz)[:, before:].double().square().sum(dim=0)))
        whole = rest.shape[0] // step * step
        powers.append(rest[:whole].unflatten(0, (-1, step)).mean(dim=1))
        rest, lead = rest[whole:], with_lead[:, -_LEAD_SECONDS * sample_hz :]
    if samples == 0:
        return Levels(0.0, 0.0, -math.inf)
    peak = max(peak, _true_peak(lead, sample_hz, lead.shape[1] - _EDGE, lead.shape[1]))
    measured = torch.cat(powers)
    if measured.shape[0] < _SUB_BLOCKS_PER_BLOCK:  # shorter than a block: what there is
        measured = torch.cat((measured, rest.mean()[None] if rest.shape[0] else rest))
        return Levels(math.sqrt(squares / samples), peak, _gated(measured.mean()[None]))
    return Levels(math.sqrt(squares / samples), peak, _gated(measured.unfold(0, _SUB_BLOCKS_PER_BLOCK, 1).mean(dim=1)))


def _weighted(wave: Float[Tensor, "channels samples"], sample_hz: int) -> Float[Tensor, "channels samples"]:
    """K-weighting: a shelf of 4 dB above 1.5 kHz, and a high pass at 38 Hz."""
    scale = _HEADROOM * max(1.0, float(wave.abs().max()))
    wave = wave / scale
    if sample_hz >= _LOWEST_SHELF_HZ:
        wave = treble_biquad(wave, sample_hz, 4.0, 1500.0, 1 / math.sqrt(2))
    return highpass_biquad(wave, sample_hz, 38.0, 0.5) * scale


def _true_peak(wave: Float[Tensor, "channels samples"], sample_hz: int, first: int, end: int) -> float:
    """The largest amplitude of samples [first, end) and between them."""
    first, end = max(first, 0), max(end, 0)
    if first == end:
        return 0.0
    near = wave[:, max(first - _EDGE, 0) :]
    oversampled = resample(near, sample_hz, _OVERSAMPLING * sample_hz)
    skipped = (first - (wave.shape[1] - near.shape[1])) * _OVERSAMPLING
    between = oversampled[:, skipped : skipped + (end - first) * _OVERSAMPLING].abs().max()
    return max(float(between), float(wave[:, first:end].abs().max()))


def _gated(powers: Float[Tensor, "blocks"]) -> float:
    """The mean power of the blocks that are neither silent nor far quieter than the others, in LUFS."""
    levels = _lufs(powers)
    loud = powers[levels > _ABSOLUTE_GATE]
    if loud.shape[0] == 0:
        return -math.inf
    relative = float(_lufs(loud.mean())) + _RELATIVE_GATE
    return float(_lufs(powers[levels > max(relative, _ABSOLUTE_GATE)].mean()))


def _lufs(power: Float[Tensor, "*blocks"]) -> Float[Tensor, "*blocks"]:
    return -0.691 + 10 * torch.log10(power)


def _amplitude(decibels: float) -> float:
    return float(10 ** (decibels / 20))
