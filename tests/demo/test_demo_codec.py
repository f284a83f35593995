"""The codec in demo/codec on rendered music that it was not trained on."""

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


def test_it_is_closer_to_the_sound_than_encodec_at_more_bits(tmp_path: Path) -> None:
    clip = make_corpus(tmp_path, 0.002, 90, find_soundfont(), 1)[0]
    wave = resampled(read_sound(tmp_path / clip.file), 24000)[None, : 24000 * 6]
    distances, between = [], []
    for name in ("model_spectral", "model"):
        codec = Codec.load(load_model_config(DEMO / f"configs/{name}.json"), torch.device("cpu"))
        decoded = codec.decode(codec.encode(wave))[:, : wave.shape[1]]
        distances.append(float(SpectralDistance(24000)(decoded, wave).mel))
        between.append(float(energy_between_partials(decoded, 24000)))
    assert distances[0] < 0.8 * distances[1]
    assert between[0] < between[1]


def test_energy_between_partials_tells_tones_from_noise() -> None:
    time = torch.arange(48000) / 24000
    tone = torch.stack([torch.sin(2 * torch.pi * 440 * n * time) / n for n in range(1, 8)]).sum(0)[None]
    noise = torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    levels = [float(energy_between_partials(wave, 24000)) for wave in (tone, tone + 0.3 * noise, noise)]
    assert levels[0] < levels[1] - 5 < levels[2] - 10
