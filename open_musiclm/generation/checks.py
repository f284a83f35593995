"""Checks of Python arguments before anything is computed; each raises a UserError that names the argument."""

import math
import numbers
import operator
from collections.abc import Container, Iterable
from typing import Any

import torch

from open_musiclm.audio import Sound
from open_musiclm.config import GenerationConfig, StageName
from open_musiclm.errors import UserError

SHORTEST_SOUND_SECONDS = 0.005
SHORTEST_SEGMENT_SECONDS = 0.1
_ROUNDED_SECONDS = 0.005  # tolerance for a length that was read off a player
_DECIMALS = 6  # of a difference of seconds: 8 - 7.9 is slightly below 0.1
MOST_SAMPLES = 100_000
_PLAUSIBLE_HZ = (1000, 1_000_000)


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 1, at most 100,000. Raises UserError."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UserError(f"{name}: expected a whole number, found {kind_of(value)}") from error
    if isinstance(value, bool) or not 1 <= number <= MOST_SAMPLES:
        shown = value if isinstance(value, bool) or number.bit_length() < 100 else "a longer one"
        raise UserError(f"{name} {shown}: expected at least 1, at most {MOST_SAMPLES}")
    return number


def check_config(config: Any, duration: Any, default: GenerationConfig) -> GenerationConfig:
    """The generation config, with `duration` if that is given. Raises UserError."""
    config = default if config is None else config
    if not isinstance(config, GenerationConfig):
        raise UserError(f"config: expected a GenerationConfig, found {kind_of(config)}")
    if duration is None:
        return config
    if isinstance(duration, bool) or not isinstance(duration, numbers.Real):
        raise UserError(f"duration: expected a number of seconds, found {kind_of(duration)}")
    try:
        seconds = float(duration)
    except OverflowError:
        seconds = math.inf
    if not 0 < seconds < math.inf:
        raise UserError(f"duration {seconds:g}: expected a number of seconds above 0")
    return config.updated({"duration": seconds})


def check_sound(name: str, sound: Any) -> Sound:
    """A mono wave of finite numbers at a plausible rate. Raises UserError."""
    if not isinstance(sound, Sound):
        raise UserError(f"{name}: expected a Sound (see open_musiclm.audio.read_sound), found {kind_of(sound)}")
    wave = sound.wave
    if not isinstance(wave, torch.Tensor) or not wave.is_floating_point():
        raise UserError(f"{name}: wave: expected a tensor of floats, found {kind_of(wave)}")
    if wave.ndim != 1:
        raise UserError(f"{name}: wave: expected a mono wave [samples], found the shape {list(wave.shape)}")
    low, high = _PLAUSIBLE_HZ
    if isinstance(sound.sample_hz, bool) or not isinstance(sound.sample_hz, int) or not low <= sound.sample_hz <= high:
        raise UserError(f"{name}: sample_hz: expected a whole number from {low} to {high}, found {sound.sample_hz!r}")
    if sound.seconds < SHORTEST_SOUND_SECONDS:
        raise UserError(
            f"{name}: only {wave.shape[0]} samples long; at least {SHORTEST_SOUND_SECONDS:g} s of sound are needed"
        )
    if not wave.isfinite().all():
        raise UserError(f"{name}: wave: holds NaN or infinity")
    return sound


def check_segment(sound: Sound, start: Any, end: Any) -> None:
    """Seconds of a sound, at least `SHORTEST_SEGMENT_SECONDS` of them. Raises UserError."""
    for name, value in (("start", start), ("end", end)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise UserError(f"{name}: expected a number of seconds, found {kind_of(value)}")
    asked = f"seconds {start:g} to {end:g}"
    if max(start, end) > sound.seconds + _ROUNDED_SECONDS:
        raise UserError(f"{asked}: the sound ends after {sound.seconds:.2f} s")
    if not 0 <= start < end:
        raise UserError(f"{asked}: expected a start of at least 0 and an end after it")
    if round(end - start, _DECIMALS) < SHORTEST_SEGMENT_SECONDS:
        raise UserError(f"{asked}: at least {SHORTEST_SEGMENT_SECONDS:g} s can be regenerated")


def check_stages(needed: Iterable[StageName], loaded: Container[StageName]) -> None:
    """Raises UserError if a stage that is needed is not loaded."""
    missing = [name for name in needed if name not in loaded]
    if missing:
        without = "; with return_coarse_wave it is not needed" if missing == ["fine"] else ""
        raise UserError(
            f"the {' and the '.join(missing)} stage is not loaded, but this generation config needs it{without}"
        )


def kind_of(value: Any) -> str:
    """A value's type; of numbers and texts the value too."""
    try:
        shown = f" {value!r}" if isinstance(value, (int, float, str, bytes)) else ""
    except ValueError:  # an integer of thousands of digits
        shown = ""
    return type(value).__name__ + (shown if len(shown) <= 40 else f"{shown[:40]}...")
