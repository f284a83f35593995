"""Spectrograms: pitch upwards, the loudest brightest, silence dark."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from open_musiclm.audio.spectrogram import spectrogram_levels, write_spectrogram

SAMPLE_HZ = 24000


def tone(hz: float) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(SAMPLE_HZ) / SAMPLE_HZ)


@pytest.mark.parametrize("hz", [110.0, 440.0, 3000.0])
def test_a_tone_is_brightest_at_its_pitch(hz: float) -> None:
    levels = spectrogram_levels(tone(hz), SAMPLE_HZ)
    band = int(levels[:, levels.shape[1] // 2].argmax())
    pitch = 50 * (11000 / 50) ** ((band + 0.5) / levels.shape[0])
    assert abs(np.log2(pitch / hz)) < 0.1
    assert levels.max() == 1


def test_higher_is_further_up_in_the_picture_and_silence_is_dark(tmp_path: Path) -> None:
    write_spectrogram(tmp_path / "tone.png", tone(3000.0), SAMPLE_HZ)
    brightness = np.asarray(Image.open(tmp_path / "tone.png").convert("L"))
    assert brightness.shape[1] == SAMPLE_HZ // 256 + 1
    assert brightness.mean(axis=1).argmax() < len(brightness) / 2
    write_spectrogram(tmp_path / "silence.png", torch.zeros(SAMPLE_HZ), SAMPLE_HZ)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "silence.png")).reshape(-1, 3), axis=0)) == 1
