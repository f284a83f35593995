"""The spectral codec: its spectrogram, what it keeps of sound, and its training."""

import json
from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU
from helpers.processes import run_script
from helpers.small_backbones import model_config
from hypothesis import given, settings
from hypothesis import strategies as st

from open_musiclm.audio import write_wave
from open_musiclm.config import EncodecConfig, GlobalConfig
from open_musiclm.errors import UserError
from open_musiclm.metrics.spectral_distance import SpectralDistance
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.log_frequency import LogFrequencySpectrogram, Resolution
from open_musiclm.tokenizers.own_directory import save_model
from open_musiclm.tokenizers.spectral_codec import SpectralArchitecture, SpectralCodec, SpectralModel

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_spectral_codec.py"
RESOLUTION = Resolution(window=2048, lowest_hz=110, highest_hz=3520, bands_per_octave=12)
SMALL = SpectralArchitecture(resolutions=(RESOLUTION,), dim=8, code_layers=1, dimension=8, n_q=3, bins=16)


@pytest.mark.parametrize("semitone", [12, 24, 37, 55])
def test_a_tone_is_loudest_in_its_own_band(semitone: int) -> None:
    spectrogram = LogFrequencySpectrogram(24000, 240, (RESOLUTION,))
    time = torch.arange(24000) / 24000
    bands = spectrogram(torch.sin(2 * torch.pi * 110 * 2 ** (semitone / 12) * time)[None], 100)
    assert bands.shape == (1, 61, 100)
    assert bands[0, :, 50].argmax() == semitone
    assert 7 < float(bands.max()) < 9.3
    assert torch.equal(spectrogram(torch.zeros(1, 2400), 10), torch.zeros(1, 61, 10))


def test_a_click_is_in_the_frame_that_it_falls_into() -> None:
    short = Resolution(window=256, lowest_hz=1000, highest_hz=10000, bands_per_octave=3)
    wave = torch.zeros(1, 24000)
    wave[0, 50 * 240 + 120] = 1.0
    assert LogFrequencySpectrogram(24000, 240, (short,))(wave, 100).sum(1).argmax() == 50


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 5000), batch=st.integers(1, 2), quantizers=st.integers(1, 3))
def test_shapes_for_any_length(samples: int, batch: int, quantizers: int) -> None:
    codec = SpectralCodec(SpectralModel(SMALL).eval(), SMALL)
    with torch.no_grad():
        codes = codec.encode(torch.randn(batch, samples), quantizers)
    assert codes.shape == (batch, -(-samples // 960), quantizers)
    assert codec.latents(codes).shape == (batch, 8, codes.shape[1])
    assert codec.quantizers_at(codec.bandwidths[quantizers - 1]) == quantizers


def test_linear_maps_of_the_principal_components_keep_most_of_a_spectrogram() -> None:
    torch.manual_seed(0)
    model = SpectralModel(SMALL.model_copy(update={"dimension": 64}))
    tones = torch.sin(torch.arange(24000) / 24000 * 2 * torch.pi * torch.tensor([[220.0], [330.0], [700.0]]))
    spectrogram = model.spectrogram(tones * torch.linspace(1, 0.1, 24000), 100)
    before = (model.decoder(model.encoder(spectrogram)) - spectrogram).abs().mean()
    model.fit_linear_maps(spectrogram)
    after = (model.decoder(model.encoder(spectrogram)) - spectrogram).abs().mean()
    assert after < 0.2 * before


def test_without_a_decoder_it_says_what_to_do(tmp_path: Path) -> None:
    save_model(SpectralModel(SMALL), SMALL, tmp_path)
    windows = GlobalConfig(num_coarse_quantizers=2, num_fine_quantizers=1)
    section = EncodecConfig(model_name=str(tmp_path), bandwidth=0.3, codebook_size=16, output_hz=25)
    codec = Codec.load(model_config(windows, section), CPU)
    assert codec.encode(torch.randn(1, 2400)).shape == (1, 3, 3)
    with pytest.raises(UserError, match=r"train_vocos\.py.*encodec_cfg\.decoder"):
        codec.decode(torch.zeros(1, 3, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spectrogram_hop": 270}, "multiple of a code frame, 1080 samples"),
        ({"bins": 1}, "bins"),
        ({"resolutions": []}, "resolutions"),
        ({"resolutions": [{**RESOLUTION.model_dump(), "highest_hz": 13000}]}, "above half of sample_hz"),
        ({"resolutions": [{**RESOLUTION.model_dump(), "highest_hz": 100}]}, "must be below highest_hz"),
    ],
)
def test_an_architecture_that_cannot_be(tmp_path: Path, changes: dict, words: str) -> None:
    save_model(SpectralModel(SMALL), SMALL, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=words):
        SpectralCodec.load(tmp_path)


def test_its_script_trains_and_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(5):
        wave = 0.1 * torch.randn(24000, generator=generator)
        write_wave(tmp_path / "sounds" / f"{number}.wav", wave, 24000)
    trainer = {"folder": str(tmp_path / "sounds"), "init": "principal_components", "crop_seconds": 0.4}
    trainer |= {"num_train_steps": 2, "batch_size": 2, "lr": 1e-3, "num_workers": 0, "valid_frac": 0.2}
    content = {"architecture": SMALL.model_dump(), "trainer": {**trainer, "save_model_every": 1}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    words = ["--config", tmp_path / "config.json", "--device", "cpu", "--log_with", "none", "--results_folder"]
    run_script(SCRIPT, [*words, tmp_path / "whole"])
    going_on = ["--continue_from_dir", tmp_path / "whole", "--continue_from_step", 1]
    run_script(SCRIPT, [*words, tmp_path / "again", *going_on])
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "again")]
    losses = [[json.loads(line)["loss"] for line in log if "loss" in json.loads(line)][-1] for log in logs]
    assert losses[0] == losses[1]
    SpectralCodec.load(tmp_path / "again/checkpoints/step_00000002/spectral_codec")


def test_spectral_distance_is_zero_for_a_copy_and_grows_with_noise() -> None:
    torch.manual_seed(0)
    distance, waves = SpectralDistance(24000), 0.2 * torch.randn(3, 12000)
    for value in distance(waves, waves):
        assert torch.equal(value, torch.zeros(3))
    little, much = (distance(waves + level * torch.randn_like(waves), waves) for level in (0.02, 0.2))
    assert all((few < many).all() for few, many in zip(little, much, strict=True))
    silence = torch.zeros(1, 4000, requires_grad=True)
    total = torch.stack(distance(silence, waves[:1, :4000])).sum()
    (gradient,) = torch.autograd.grad(total, silence)
    assert gradient.isfinite().all()
