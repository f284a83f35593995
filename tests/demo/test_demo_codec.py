"""The codec in demo/bundle on rendered music that it was not trained on."""

from pathlib import Path

import torch
from helpers.paths import DEMO

from demo.corpus.corpus import make_corpus
from demo.corpus.soundfont import find_soundfont
from open_musiclm.audio import read_sound, resampled
from open_musiclm.config import load_model_config
from open_musiclm.metrics.partials import energy_between_partials
from open_musiclm.metrics.spectral_distance import SpectralDistance
from open_musiclm.tokenizers.codec import Codec


def test_it_keeps_the_sound_and_adds_no_noise(tmp_path: Path) -> None:
    clip = make_corpus(tmp_path, 0.002, 90, find_soundfont(), 1)[0]
    wave = resampled(read_sound(tmp_path / clip.file), 24000)[None, : 24000 * 6]
    codec = Codec.load(load_model_config(DEMO / "configs/model.json"), torch.device("cpu"))
    codes = codec.encode(wave)
    assert codes.shape == (1, 150, 6)
    decoded = codec.decode(codes)[:, : wave.shape[1]]
    scrambled = codec.decode(codes[:, :, torch.arange(5, -1, -1)])[:, : wave.shape[1]]
    distance = SpectralDistance(24000)
    assert float(distance(decoded, wave).mel) < 0.4 * float(distance(scrambled, wave).mel)
    added = energy_between_partials(decoded, 24000) - energy_between_partials(wave, 24000)
    assert float(added) < 4


def test_energy_between_partials_tells_tones_from_noise() -> None:
    time = torch.arange(48000) / 24000
    tone = torch.stack([torch.sin(2 * torch.pi * 440 * n * time) / n for n in range(1, 8)]).sum(0)[None]
    noise = torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    levels = [float(energy_between_partials(wave, 24000)) for wave in (tone, tone + 0.3 * noise, noise)]
    assert levels[0] < levels[1] - 5 < levels[2] - 10
