"""Sound files for tests: tones, pulses that say where they stand, and every kind of bad file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

# Pulses 0.25 s apart; the height of each one says which it is.
PULSE_SPACING = 0.25
PULSE_DEVIATION = 0.001
_LOWEST, _STEP = 0.1, 0.02


def write_tone(path: Path, seconds: float, sample_hz: int = 16000, channels: int = 1, hz: float = 220.0) -> Path:
    """A sine; the channels are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * sample_hz)) / sample_hz
    wave = 0.3 * np.sin(2 * np.pi * hz * times).astype("float32")
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), sample_hz)
    return path


def write_pulses(path: Path, seconds: float, sample_hz: int) -> Path:
    """Narrow bumps in the middle of each quarter of a second."""
    times = np.arange(round(seconds * sample_hz)) / sample_hz
    number = np.floor(times / PULSE_SPACING)
    distance = times - (number + 0.5) * PULSE_SPACING
    wave = (_LOWEST + _STEP * number) * np.exp(-0.5 * (distance / PULSE_DEVIATION) ** 2)
    soundfile.write(path, wave, sample_hz, subtype="FLOAT")
    return path


def start_of(wave: np.ndarray, sample_hz: int) -> float:
    """Where in a file of pulses a crop starts, in seconds, by the first whole pulse in it."""
    margin = round(10 * PULSE_DEVIATION * sample_hz)
    window = round(PULSE_SPACING * sample_hz)
    peak = margin + int(np.argmax(wave[margin : margin + window + 1]))
    around = np.arange(max(peak - margin, 0), min(peak + margin + 1, len(wave)))
    number = round((wave[peak] - _LOWEST) / _STEP)
    centre = float((around * wave[around]).sum() / wave[around].sum()) / sample_hz
    return (number + 0.5) * PULSE_SPACING - centre


def write_ramp(path: Path, seconds: float, sample_hz: int = 16000) -> Path:
    """A wave that rises from 0 to 1 over the file: its value says which part of the file it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * sample_hz)
    soundfile.write(path, np.arange(count) / count, sample_hz, subtype="FLOAT")
    return path


def write_three_hours(path: Path) -> Path:
    """Three hours of quiet noise in a small file."""
    noise = (np.random.default_rng(0).integers(-1, 2, 2000 * 60) * 64).astype("int16")
    with soundfile.SoundFile(path, "w", 2000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(180):
            file.write(noise)
    return path


def _content(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _truncated(path: Path) -> Path:
    write_tone(path, 4.0)
    return _content(path, path.read_bytes()[: path.stat().st_size // 2])


def _constant(path: Path, value: float) -> Path:
    soundfile.write(path, np.full(32000, value, "float32"), 16000, subtype="FLOAT")
    return path


def _not_a_number(path: Path) -> Path:
    wave = np.full(48000, 0.1, "float32")
    wave[::2] = -0.1
    wave[::1000] = np.nan
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    return path


def _dangling(path: Path) -> Path:
    path.symlink_to(path.with_name("nowhere"))
    return path


# Every file that cannot be used: how to write it, and what its error says.
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty.wav": (partial(_content, content=b""), "an empty file"),
    "header_alone.flac": (partial(_content, content=b"fLaC"), "not a sound file"),
    "text.mp3": (partial(_content, content=b"Not music but words.\n" * 50), "not a sound file"),
    "truncated.flac": (_truncated, "truncated|damaged"),
    "silent.wav": (partial(_constant, value=0.0), "silent"),
    "constant.wav": (partial(_constant, value=0.25), "silent"),
    "nan.wav": (_not_a_number, "not finite"),
    "missing.ogg": (_dangling, "cannot read"),
}
# Odd ones that can.
ODD: dict[str, Callable[[Path], Path]] = {
    "tenth_of_a_second.wav": partial(write_tone, seconds=0.1),
    "eight_channels.wav": partial(write_tone, seconds=3.0, channels=8),
    "eight_kilohertz.ogg": partial(write_tone, seconds=3.3, sample_hz=8000),
    "192_kilohertz.FLAC": partial(write_tone, seconds=2.7, sample_hz=192000),
    "three_hours.flac": write_three_hours,
}
