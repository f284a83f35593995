"""Renders notes as sound: every voice through the soundfont, balanced, with a little reverberation."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from demo.corpus.orchestration import Voice
from open_musiclm.errors import UserError

SAMPLE_HZ = 48000
_PEAK_DECIBELS = (-9.0, -2.0)
_ACCOMPANIMENT_DECIBELS = -5.0
_REVERBERATION_SECONDS = (0.5, 1.8)
_WET_SHARE = (0.03, 0.25)
_FADE_SECONDS = 0.4
_SILENCING_SAMPLES = 4800  # samples, at the most, after which a released note is silent
_NOTE_SHARE = 0.96  # how much of its length a note is held


def render(voices: Sequence[Voice], seconds: float, soundfont: Path, rng: np.random.Generator) -> np.ndarray:
    """A mono float32 wave at 48 kHz of exactly round(seconds * 48000) samples, peak between -9 and -2 dB.

    Raises UserError if the soundfont cannot be read.
    """
    samples = round(seconds * SAMPLE_HZ)
    mix = np.zeros(samples)
    for voice in voices:
        wave = _played(voice, samples, soundfont, rng)
        level = 1.0 if voice.leads else 10 ** (_ACCOMPANIMENT_DECIBELS / 20)
        mix += wave * level / max(_loudness(wave), 1e-9)
    mix = _in_a_room(mix, rng)
    fade = round(_FADE_SECONDS * SAMPLE_HZ)
    mix[-fade:] *= np.linspace(1, 0, fade)
    peak = 10 ** (rng.uniform(*_PEAK_DECIBELS) / 20)
    return (mix * peak / max(np.abs(mix).max(), 1e-9)).astype(np.float32)


def _played(voice: Voice, samples: int, soundfont: Path, rng: np.random.Generator) -> np.ndarray:
    events = []  # (sample, 0 ends or 1 begins, pitch, velocity); ends come before beginnings at the same sample
    for note in voice.notes:
        events.append((round(note.onset * SAMPLE_HZ), 1, note.pitch, int(rng.integers(84, 112))))
        events.append((round((note.onset + note.length * _NOTE_SHARE) * SAMPLE_HZ), 0, note.pitch, 0))
    synth = _synth(soundfont, voice.instrument.program)
    parts, now = [], 0
    for sample, begins, pitch, velocity in sorted(events):
        if sample >= samples:
            break
        if sample > now:
            parts.append(_generated(synth, sample - now))
            now = sample
        if begins:
            synth.noteon(0, pitch, velocity)
        else:
            synth.noteoff(0, pitch)
    return np.concatenate([*parts, _generated(synth, samples - now)])


def _synth(soundfont: Path, program: int) -> Any:
    """A silent synthesizer with this program; loading a large soundfont takes longer than playing a clip."""
    try:
        import tinysoundfont  # its dependency pyaudio is only needed for playback
    except ImportError as error:
        raise UserError("tinysoundfont is not installed: pip install --no-deps tinysoundfont") from error
    try:
        synth, identifier = _loaded(soundfont)
        synth.sounds_off(0)
        _generated(synth, _SILENCING_SAMPLES)
        synth.program_select(0, identifier, 0, program)
    except (RuntimeError, tinysoundfont.SoundFontException) as error:
        raise UserError(f"{soundfont}: not a General MIDI soundfont that can be read: {error}") from error
    return synth


@cache
def _loaded(soundfont: Path) -> tuple[Any, int]:
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=SAMPLE_HZ, gain=-6)
    return synth, synth.sfload(soundfont.read_bytes())


def _generated(synth: Any, samples: int) -> np.ndarray:
    return np.frombuffer(synth.generate_simple(samples), dtype=np.float32).reshape(-1, 2).mean(axis=1)


def _loudness(wave: np.ndarray) -> float:
    """Root mean square over the tenths of a second that are not near silence."""
    blocks = wave[: len(wave) // 4800 * 4800].reshape(-1, 4800)
    powers = np.square(blocks).mean(axis=1)
    return float(np.sqrt(powers[powers >= powers.max() * 1e-3].mean()))


def _in_a_room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds the wave folded with decaying noise."""
    length = round(rng.uniform(*_REVERBERATION_SECONDS) * SAMPLE_HZ)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    size = 1 << int(len(wave) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave)]
    share = rng.uniform(*_WET_SHARE)
    return (1 - share) * wave + share * wet * np.sqrt(np.square(wave).mean() / max(np.square(wet).mean(), 1e-12))
