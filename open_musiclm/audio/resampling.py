"""Resampling to exact lengths."""

from fractions import Fraction

import torchaudio
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.waves import Sound, fit_length, normalize, samples_of, statistics_of

# Rates with hardly a common divisor make the resampling kernel huge; this keeps the pitch within 0.0001 %, or
# within 0.05 % where one rate is almost a multiple of the other (44,099 and 44,100 Hz).
_LARGEST_RATIO_TERM = 1000


def resample(wave: Float[Tensor, "*batch samples"], from_hz: int, to_hz: int) -> Float[Tensor, "*batch resampled"]:
    """Band-limited resampling by windowed sinc; the result has ceil(samples * to_hz / from_hz) samples or so."""
    if from_hz == to_hz:
        return wave
    ratio = Fraction(to_hz, from_hz)
    if max(ratio.numerator, ratio.denominator) > _LARGEST_RATIO_TERM:
        ratio = _simplified(ratio)
    return torchaudio.functional.resample(wave, ratio.denominator, ratio.numerator)


def resampled(sound: Sound, sample_hz: int) -> Float[Tensor, "samples"]:
    """The wave at another rate, round(seconds * sample_hz) samples."""
    return fit_length(resample(sound.wave, sound.sample_hz, sample_hz), samples_of(sound.seconds, sample_hz))


def semantic_input(sound: Sound, sample_hz: int) -> Float[Tensor, "samples"]:
    """MERT's input: normalised over the whole sound, then resampled to `sample_hz`."""
    normalized = normalize(sound.wave, statistics_of(sound.wave))
    return resampled(Sound(normalized, sound.sample_hz), sample_hz)


def _simplified(ratio: Fraction) -> Fraction:
    if ratio <= 1:
        return ratio.limit_denominator(_LARGEST_RATIO_TERM)
    return 1 / (1 / ratio).limit_denominator(_LARGEST_RATIO_TERM)
