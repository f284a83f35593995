"""Vocos in training: its script, its codes of sound or of a token store, and its discriminators."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.golden_cases import CPU
from helpers.preprocessing import settings_of
from helpers.processes import run_script
from helpers.run_logs import losses
from helpers.small_backbones import build_codec
from helpers.small_stack import CODEC, Stack
from test_decoders import config_of
from torch import nn

from open_musiclm.audio import SoundError, find_sounds, read_sound, repeat_to, write_wave
from open_musiclm.config import load_model_config
from open_musiclm.config.codecs import VocosTrainerConfig
from open_musiclm.config.json_files import load_section
from open_musiclm.data.crops import Crop
from open_musiclm.data.preprocess import Preprocessor
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.training.backbones.code_sources import CachedCodes, TokenStoreCodes
from open_musiclm.training.backbones.coded_data import cached_data, token_store_data
from open_musiclm.training.backbones.coded_sounds import CodedSounds
from open_musiclm.training.backbones.train import VocosTrainingConfig
from open_musiclm.training.backbones.train import train_vocos as train_vocos_in_process
from open_musiclm.training.backbones.vocos import VocosTrainer, vocos_architecture
from open_musiclm.training.backbones.vocos_discriminators import Discriminators, loss_of_discriminators
from open_musiclm.training.options import RunOptions
from open_musiclm.training.trainer import IndexedBatch

SCRIPTS = Path(__file__).parents[1] / "scripts"


def train_config(folder: Path, **more: object) -> dict:
    return {
        "architecture": {"quantizers": [3, 8], "dim": 16, "intermediate_dim": 16, "layers": 1, "n_fft": 640},
        "trainer": {
            "folder": str(folder / "sounds"),
            "codes_folder": str(folder / "codes"),
            "num_train_steps": 2,
            "batch_size": 2,
            "lr": 1e-3,
            "num_workers": 0,
            "valid_frac": 0.4,
            "crop_seconds": 0.4,
            "save_model_every": 1,
            "save_results_every": 2,
            "adversarial_weight": 0.3,
            "discriminator_periods": [],
            "discriminator_windows": [512],
            "discriminator_channels": 4,
            **more,
        },
    }


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tones, one too short for a crop, one that is no sound, and a codec with its model config."""
    folder = tmp_path_factory.mktemp("vocos_training")
    time = torch.arange(24000) / 24000
    for number in range(6):
        write_wave(folder / "sounds" / f"{number}.wav", 0.5 * torch.sin(700 * (number + 1) * time), 24000)
    write_wave(folder / "sounds/short.wav", 0.5 * torch.sin(700 * time[:2400]), 24000)
    (folder / "sounds/broken.wav").write_bytes(b"no sound at all")
    build_codec(folder / "codec")
    decoder = folder / "decoder"  # is not there: it is what will be trained
    config = config_of(folder / "codec", decoder, 8, bandwidth=2.4, codebook_size=16)
    (folder / "model.json").write_text(config.model_dump_json())
    return folder


def train_vocos(folder: Path, name: str, *words: object, **more: object) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(train_config(folder, **more)))
    given = ["--config", path, "--model_config", folder / "model.json", "--results_folder", folder / name]
    run_script(SCRIPTS / "train_vocos.py", [*given, "--device", "cpu", "--log_with", "none", *words], 1)
    return folder / name


def test_train_vocos_writes_a_decoder_and_goes_on_as_if_never_stopped(sounds: Path) -> None:
    whole = train_vocos(sounds, "whole")
    kept = {path: path.stat().st_mtime_ns for path in (sounds / "codes").iterdir()}
    assert len(kept) == 7
    again = train_vocos(sounds, "again", "--continue_from_dir", whole, "--continue_from_step", 1)
    assert losses(again)[2] == losses(whole)[2]
    assert kept == {path: path.stat().st_mtime_ns for path in (sounds / "codes").iterdir()}
    decoder = whole / "checkpoints/step_00000002/vocos"
    codec = Codec.load(config_of(sounds / "codec", decoder, 8, bandwidth=2.4, codebook_size=16), CPU)
    assert codec.decode(torch.randint(16, (1, 10, 8))).shape == (1, 3200)
    assert sorted(path.name for path in whole.glob("samples/*/*.wav"))[0] == "0_decoded.wav"
    assert "broken.wav" in (whole / "failed_sounds.txt").read_text()


def test_folders_named_train_and_valid_keep_the_split(sounds: Path, tmp_path: Path) -> None:
    for number in range(4):
        side = tmp_path / ("valid" if number == 2 else "train")
        side.mkdir(exist_ok=True)
        shutil.copy(sounds / "sounds" / f"{number}.wav", side)
    codec = Codec.load(config_of(sounds / "codec", None, 8, bandwidth=2.4, codebook_size=16), CPU)
    places = {"folder": str(tmp_path), "codes_folder": str(tmp_path / "codes")}
    trainer = VocosTrainerConfig.model_validate(train_config(sounds)["trainer"] | places)
    data = cached_data(codec, trainer, Accelerator(cpu=True))
    assert data.validation_examples == 1
    assert len(data.training) == 3


def test_kept_codes_that_are_damaged_are_made_again(sounds: Path, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    codec = Codec.load(config_of(sounds / "codec", None, 8, bandwidth=2.4, codebook_size=16), CPU)
    paths = [sounds / "sounds" / f"{number}.wav" for number in range(3)]
    first = CachedCodes(tmp_path, codec)
    first.add(paths, accelerator)
    expected = [first.codes(place, 0, 75) for place in range(3)]
    assert torch.equal(expected[1].long(), codec.encode(read_sound(paths[1]).wave[None])[0])
    files = sorted(tmp_path.iterdir())
    del first
    files[0].write_bytes(b"x")
    np.save(files[1], np.full((75, 8), 999, dtype=np.int32))
    np.save(files[2], np.zeros((75, 3), dtype=np.int32))
    again = CachedCodes(tmp_path, codec)
    again.add(paths, accelerator)
    assert all(torch.equal(again.codes(place, 0, 75), expected[place]) for place in range(3))
    assert len(again) == 3
    assert not again.failures


def test_codes_of_many_files_take_few_descriptors(sounds: Path, tmp_path: Path) -> None:
    codec = Codec.load(config_of(sounds / "codec", None, 8, bandwidth=2.4, codebook_size=16), CPU)
    codes, kept = CachedCodes(tmp_path, codec), len(os.listdir("/proc/self/fd"))
    codes.add([sounds / "sounds" / f"{number}.wav" for number in range(4)], Accelerator(cpu=True))
    read = [codes.codes(place, 0, 10) for place in range(4)]
    assert len(os.listdir("/proc/self/fd")) == kept
    assert [part.shape for part in read] == 4 * [(10, 8)]
    assert [codes.frames(place) for place in range(4)] == 4 * [75]
    for file in tmp_path.glob("*.npy"):
        file.unlink()
    with pytest.raises(SoundError, match=r"1\.wav: its codes, .*\.npy, are gone or damaged"):
        codes.codes(1, 0, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": {"quantizers": [9]}}, "quantizers: 9, but this model config's codec has 8"),
        ({"architecture": {"quantizers": [8], "head_hop": 300}}, "head_hop 300 must divide hop 320"),
        (
            {"trainer": {"mel_weight": 0, "magnitude_weight": 0, "convergence_weight": 0, "adversarial_weight": 0}},
            "all",
        ),
        ({"trainer": {"crop_seconds": 0.01}}, "shorter than a spectrogram's window"),
        ({"trainer": {"crop_seconds": 30}}, "none of the 4 sound files can be used"),
        ({"trainer": {"token_store": "nowhere"}}, "no preprocessed tokens there"),
        ({"trainer": {"token_store": "nowhere", "codes_folder": None}}, "no preprocessed tokens there"),
        ({"trainer": {"codes_folder": None}}, "codes_folder: missing; name a folder for the codes, or a token_store"),
    ],
)
def test_a_config_that_cannot_train_is_one_line(sounds: Path, tmp_path: Path, change: dict, words: str) -> None:
    config = train_config(sounds)
    for section, keys in change.items():
        config[section] |= keys
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=words):
        train_vocos_in_process(
            load_section(path, VocosTrainingConfig),
            load_model_config(sounds / "model.json"),
            RunOptions("vocos", tmp_path / "results", log_with="none", device="cpu"),
            None,
        )


def test_a_token_store_gives_the_codes_of_its_sound(stack: Stack, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        write_wave(tmp_path / "sound" / f"{number}.wav", 0.1 * torch.randn(24000 * 4, generator=generator), 24000)
    tokenizer = stack.tokenizer()
    settings = settings_of(tmp_path, max_audio_length_seconds=3.0)
    Preprocessor(stack.config, settings, tokenizer, {}, CPU).run(find_sounds(tmp_path / "sound"))
    store = TokenStore(tmp_path / "store", stack.config)
    source = TokenStoreCodes(store, tmp_path / "sound", 15)
    crop = Crop("codec", 0.8, 24000, normalized=False)
    example = CodedSounds(source, range(len(source)), crop, CODEC.hop, 0, random_crops=False)[1]
    assert example.codes.shape == (12, 8)
    frames, path = source.frames(1), source.path(1)
    first = (frames - 12) // 2
    start = round(source.start_seconds(1) * 24000) + first * CODEC.hop
    sound = read_sound(path).wave
    assert torch.equal(example.wave, sound[start : start + 12 * CODEC.hop])
    begin = round(source.start_seconds(1) * 24000)
    whole = tokenizer.codec.encode(sound[None, begin : begin + frames * CODEC.hop])[0]
    assert torch.equal(example.codes, whole[first : first + 12])


def test_a_sound_shorter_than_the_window_is_repeated_as_its_codes_are(stack: Stack, tmp_path: Path) -> None:
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    write_wave(tmp_path / "sound" / "a.wav", noise, 24000)
    tokenizer = stack.tokenizer()
    Preprocessor(stack.config, settings_of(tmp_path), tokenizer, {}, CPU).run(find_sounds(tmp_path / "sound"))
    source = TokenStoreCodes(TokenStore(tmp_path / "store", stack.config), tmp_path / "sound", 15)
    sound = repeat_to(read_sound(tmp_path / "sound" / "a.wav").wave, round(source.frames(0) * CODEC.hop))
    data = CodedSounds(source, [0], Crop("codec", 0.8, 24000, normalized=False), CODEC.hop, 0, random_crops=True)
    starts = set()
    for number in range(20):
        wave = data[number].wave
        starts |= {
            first
            for first in range(source.frames(0) - 11)
            if torch.equal(wave, sound[first * CODEC.hop :][: len(wave)])
            and torch.equal(data[number].codes, source.codes(0, first, 12))
        }
    assert len(starts) > 2


def test_a_token_store_of_another_codec_is_refused(stack: Stack, sounds: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path).model_copy(update={"folder": str(sounds / "sounds")})
    fingerprints = {"encodec": "of other weights"}
    preprocessor = Preprocessor(stack.config, settings, stack.tokenizer(), fingerprints, CPU)
    preprocessor.run(find_sounds(sounds / "sounds"))
    store = TokenStore(tmp_path / "store", stack.config)
    trainer = VocosTrainerConfig.model_validate(train_config(sounds)["trainer"])
    with pytest.raises(UserError, match=r"encodec"):
        token_store_data(stack.tokenizer().codec, store, trainer, stack.config)


def test_a_token_store_of_changed_sound_is_refused(stack: Stack, sounds: Path, tmp_path: Path) -> None:
    """Its tokens are not those of the files."""
    settings = settings_of(tmp_path, augment={"gain_db": 6}).model_copy(update={"folder": str(sounds / "sounds")})
    preprocessor = Preprocessor(stack.config, settings, stack.tokenizer(), {}, CPU)
    preprocessor.run(find_sounds(sounds / "sounds"))
    store, trainer = (
        TokenStore(tmp_path / "store", stack.config),
        VocosTrainerConfig.model_validate(train_config(sounds)["trainer"]),
    )
    with pytest.raises(UserError, match=r"token_store: .* its tokens are of changed sound"):
        token_store_data(stack.tokenizer().codec, store, trainer, stack.config)


def test_discriminators_are_trained_by_their_own_loss_alone(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by what the decoder descends, in which they take part."""
    config = VocosTrainingConfig.model_validate(train_config(sounds, feature_matching_weight=1.0))
    codec, accelerator = (
        Codec.load_without_decoder(load_model_config(sounds / "model.json"), CPU),
        Accelerator(cpu=True),
    )
    trainer = VocosTrainer(accelerator, codec, vocos_architecture(config.architecture, codec), config.trainer)
    data, seen, found = cached_data(codec, config.trainer, accelerator), [], []
    module = trainer.discriminator.plain_module

    def loss_of(discriminators: nn.Module, decoded: torch.Tensor, waves: torch.Tensor) -> torch.Tensor:
        seen.append((decoded, waves))
        return loss_of_discriminators(discriminators, decoded, waves)

    def update(step: int, losses: list[torch.Tensor]) -> None:
        found.extend(weight.grad.clone() for weight in module.parameters())

    monkeypatch.setattr("open_musiclm.training.backbones.vocos.loss_of_discriminators", loss_of)
    monkeypatch.setattr(trainer.discriminator, "update", update)
    batch = data.collate([data.training[index] for index in range(2)])
    trainer.train_step(iter([IndexedBatch(batch, range(2))]), step=0)
    module.zero_grad()
    loss_of_discriminators(module, *seen[0]).backward()
    for weight, gradient in zip(module.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, weight.grad)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"discriminator_windows": [512, 20480]}, "discriminator_windows: the largest, 20480, .*10241 .*9600"),
        ({"discriminator_windows": [19198]}, None),
        ({"discriminator_periods": [2, 9601]}, "discriminator_periods: the largest, 9601, .*9601 .*9600"),
        ({"discriminator_windows": [20480], "adversarial_weight": 0}, None),
    ],
)
def test_crops_hold_the_windows_of_the_discriminators(sounds: Path, changes: dict, told: str | None) -> None:
    config = VocosTrainingConfig.model_validate(train_config(sounds, **changes))
    codec = Codec.load_without_decoder(load_model_config(sounds / "model.json"), CPU)
    with pytest.raises(UserError, match=f"^trainer: {told}; raise crop_seconds") if told else nullcontext():
        VocosTrainer(Accelerator(cpu=True), codec, vocos_architecture(config.architecture, codec), config.trainer)


def test_discriminators_learn_to_tell_decoded_sound_and_tell_the_decoder() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators([2], [512], channels=4)
    waves, noise = 0.5 * torch.sin(torch.arange(8000) / 9)[None].repeat(2, 1), 0.3 * torch.randn(2, 8000)
    optimizer = torch.optim.Adam(discriminators.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = loss_of_discriminators(discriminators, noise, waves)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    told, same = discriminators.generator_losses(noise, waves), discriminators.generator_losses(waves, waves)
    assert told.adversarial > same.adversarial
    assert float(same.feature_matching) == 0
