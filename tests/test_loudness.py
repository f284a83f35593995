"""Loudness, true peak and RMS of waves, measured block by block."""

import math

import pytest
import torch
import torchaudio

from open_musiclm.audio import levels_of


def music(sample_hz: int, seconds: float) -> torch.Tensor:
    """A tone that swells, in noise, whose second half is quiet."""
    time = torch.arange(round(sample_hz * seconds)) / sample_hz
    noise = torch.randn(time.shape, generator=torch.Generator().manual_seed(0))
    wave = 0.3 * torch.sin(440 * 2 * math.pi * time) * time.sin().abs() + 0.02 * noise
    wave[wave.shape[0] // 2 :] *= 0.01
    return wave


@pytest.mark.parametrize("sample_hz", [24000, 32000, 44100])
@pytest.mark.parametrize("block", [777, 50000, 10**7])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_loudness_is_that_of_another_implementation(sample_hz: int, block: int) -> None:
    wave = music(sample_hz, 7.3)
    expected = float(torchaudio.functional.loudness(wave[None], sample_hz))
    measured = levels_of(wave.split(block), sample_hz)
    assert measured.loudness == pytest.approx(expected, abs=0.01)
    assert measured.rms == pytest.approx(float(wave.square().mean().sqrt()), rel=1e-5)


def test_a_sine_of_full_scale_at_1_khz_is_3_lufs_below_full_scale() -> None:
    """As BS.1770-4 says of one channel."""
    time = torch.arange(48000 * 2) / 48000
    assert levels_of([torch.sin(997 * 2 * math.pi * time)], 48000).loudness == pytest.approx(-3.01, abs=0.05)


def test_the_true_peak_is_between_the_samples() -> None:
    time = torch.arange(24000)
    wave = 0.5 * torch.sin(math.pi / 2 * time + math.pi / 4)  # no sample is above 0.36
    assert levels_of([wave], 24000).peak == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("block", [1, 100, 255, 5000, 24120, 40000])
def test_the_true_peak_does_not_depend_on_blocks(block: int) -> None:
    """A block that ends where the wave is high overshoots, if silence is taken to follow."""
    wave = 0.5 * torch.sin(50 * 2 * math.pi * torch.arange(48000 if block > 1 else 2400) / 24000)
    whole = levels_of([wave], 24000).peak
    assert whole == pytest.approx(0.5, rel=0.002)
    assert levels_of(wave.split(block), 24000).peak == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("factor", [100.0, 300.0])
def test_floats_above_full_scale_have_their_own_loudness(factor: float) -> None:
    wave = music(24000, 3.0)
    once = levels_of(wave.split(30000), 24000).loudness
    loud = levels_of((factor * wave).split(30000), 24000).loudness
    assert loud - once == pytest.approx(20 * math.log10(factor), abs=0.01)


@pytest.mark.parametrize("sample_hz", [1000, 2000, 2900, 3999, 4000, 8000])
def test_low_sample_rates_have_a_loudness(sample_hz: int) -> None:
    wave = 0.3 * torch.sin(200 * 2 * math.pi * torch.arange(2 * sample_hz) / sample_hz)
    assert levels_of([wave], sample_hz).loudness == pytest.approx(-14.3, abs=0.5)


@pytest.mark.parametrize("wave", [torch.zeros(24000), torch.zeros(0), torch.full((24000,), 1e-6)])
def test_silence_gets_no_gain(wave: torch.Tensor) -> None:
    levels = levels_of([wave], 24000)
    assert levels.loudness == -math.inf
    assert levels.gain_to(-16) == 1


@pytest.mark.parametrize("samples", [1, 100, 5000])
def test_a_wave_shorter_than_a_block_is_measured_as_a_whole(samples: int) -> None:
    levels = levels_of([music(24000, 1.0)[-samples:]], 24000)
    assert math.isfinite(levels.gain_to(-16))
    assert levels.rms > 0


def test_gain_keeps_peaks_below_1_dbtp() -> None:
    wave = torch.zeros(48000)
    wave[::24000] = 0.5
    wave += 0.001 * music(24000, 2.0)
    gained = levels_of([wave * levels_of([wave], 24000).gain_to(-5)], 24000)
    assert gained.loudness < -6
    assert gained.peak <= 10 ** (-1 / 20) * 1.001
