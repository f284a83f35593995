"""Little music: early stop, the best checkpoint, overfitting, memorization, augmentation, repeat, captions."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.run_logs import log
from helpers.small_stack import Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trainers import run, tokenizers

from open_musiclm.audio import read_window, sound_info
from open_musiclm.checkpoints import chosen_step, find_weights, saved_steps
from open_musiclm.config import DataPreprocessorConfig
from open_musiclm.config.augment import AugmentConfig
from open_musiclm.data.augmentation import SoundChange, changed_window
from open_musiclm.data.caption_tokens import CAPTION_TOKENS_NAME, read_caption_tokens
from open_musiclm.data.captions import captions_of
from open_musiclm.data.check import Captions, check_data
from open_musiclm.data.crop_preparation import CropPreparation
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundDataset
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError
from open_musiclm.training.early_stop import LossHistory

SECTION = {"stage": "semantic", "batch_size": 2, "valid_frac": 0.34, "num_workers": 0, "lr": 0.01}
SECTION |= {"save_reconstructed_wave": False, "save_model_every": 100, "save_results_every": 1}


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def train(stack: Stack, folder: Path, data: Path, *words: object, **section: object) -> None:
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({"semantic_trainer_cfg": {**SECTION, "folder": str(data), **section}}))
    configs = ["--model_config", stack.model_config, "--training_config", path, "--results_folder", folder]
    run("train_semantic_stage", *configs, "--log_with", "none", *tokenizers(stack), *words)


def test_a_history_says_when_to_stop_and_that_it_overfits() -> None:
    history = LossHistory()
    for step, (training, validation) in enumerate([(3.0, 3.1), (2.5, 2.8), (2.0, 2.9), (1.5, 3.2)], start=1):
        history = history.trained(training).trained(float("nan")).validated(step, validation)
    assert (history.lowest, history.lowest_step) == (2.8, 2)
    assert history.should_stop(2)
    assert not history.should_stop(3)
    assert not history.should_stop(None)
    assert history.overfits
    assert "training loss fell from 2.5 to 1.5, and the validation loss rose from 2.8 to 3.2" in history.describe()
    assert not history.trained(4.0).validated(5, 3.3).overfits


def test_a_run_stops_early_and_stands_for_its_best(
    tmp_path: Path, stack: Stack, tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random tokens cannot be learned: training on them soon makes others less likely."""
    data = {"use_preprocessed_data": True, "lr": 0.05, "early_stop_patience": 2, "num_train_steps": 40}
    train(stack, tmp_path / "run", tokens, **data)
    losses = {line["step"]: line["validation_loss"] for line in log(tmp_path / "run") if "validation_loss" in line}
    best = min(losses, key=lambda step: losses[step])
    assert max(losses) == best + 2 < 40
    assert saved_steps(tmp_path / "run")[-1] == best + 2
    assert chosen_step(tmp_path / "run") == best
    assert f"step_{best:08d}" in str(find_weights(tmp_path / "run", "semantic"))
    told = capsys.readouterr().err
    assert f"the folder stands for its best checkpoint, of step {best}" in told
    assert "memorization: continues" in told
    found = json.loads((tmp_path / "run" / "memorization.json").read_text())
    assert 0 <= found["training"] <= 1
    assert f"of the tokens of 16 training examples, and {found['unseen']:.1%} of 2 unseen ones exactly" in told
    assert found["unseen_examples"] == 2
    train(stack, tmp_path / "run", tokens, "--continue_from_dir", tmp_path / "run", **data)
    assert "this run stopped early; raise early_stop_patience to continue" in capsys.readouterr().err
    train(stack, tmp_path / "run", tokens, "--continue_from_dir", tmp_path / "run", **data | {"early_stop_patience": 3})
    assert max(line["step"] for line in log(tmp_path / "run")) == best + 3
    longer = data | {"early_stop_patience": None, "num_train_steps": best + 4}
    train(stack, tmp_path / "run", tokens, "--continue_from_dir", tmp_path / "run", **longer)
    assert chosen_step(tmp_path / "run") == best + 4  # the newest, without patience
    train(stack, tmp_path / "run", tokens, "--continue_from_dir", tmp_path / "run", **data)
    assert chosen_step(tmp_path / "run") == best  # nothing is trained or saved


def test_a_stage_that_memorizes_is_named(
    tmp_path: Path, stack: Stack, tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"use_preprocessed_data": True, "lr": 0.02, "num_train_steps": 30, "save_results_every": 10}
    train(stack, tmp_path / "run", tokens, **data)
    assert "semantic: overfitting: since step" in capsys.readouterr().err


def test_repeat_ends_a_run(tmp_path: Path, stack: Stack, tokens: Path) -> None:
    train(stack, tmp_path / "run", tokens, use_preprocessed_data=True, repeat=3, num_train_steps=100)
    assert saved_steps(tmp_path / "run") == [6]  # 4 files to train on, 3 times, 2 at once


def test_repeat_counts_what_a_run_took_before_it_was_resumed(tmp_path: Path, stack: Stack, tokens: Path) -> None:
    """Two passes over four files in four steps, then the third one with batches of four."""
    data, end = {"use_preprocessed_data": True, "num_train_steps": 100}, ["--continue_from_dir", tmp_path / "run"]
    train(stack, tmp_path / "run", tokens, **data, repeat=2)
    train(stack, tmp_path / "run", tokens, *end, **data, repeat=3, batch_size=4)
    assert saved_steps(tmp_path / "run")[-1] == 5


def test_early_stopping_is_refused_without_validation(tmp_path: Path, stack: Stack, tokens: Path) -> None:
    data = {"use_preprocessed_data": True, "num_train_steps": 1, "valid_frac": 0}
    with pytest.raises(UserError, match="semantic_trainer_cfg: early_stop_patience: there is no validation set"):
        train(stack, tmp_path / "run", tokens, **data, early_stop_patience=1)


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Four seconds of 440 Hz with clicks, two a second."""
    wave = 0.2 * np.sin(np.arange(4 * 16000) * 2 * np.pi * 440 / 16000)
    wave[::8000] += 0.5
    soundfile.write(tmp_path / "tone.wav", wave, 16000)
    return tmp_path / "tone.wav"


def pitch(wave: torch.Tensor) -> float:
    return float(torch.fft.rfft(wave).abs().argmax()) * 16000 / len(wave)


@pytest.mark.parametrize(("change", "hz"), [((1, 1, 1.1), 440), ((1, 1.05, 1), 462), ((0.5, 1.05, 0.9), 462)])
def test_pitch_and_tempo_change_apart(tone: Path, change: tuple[float, float, float], hz: float) -> None:
    info, found = sound_info(tone), SoundChange(*change)
    plain, changed = read_window(tone, 0, 32000, info), changed_window(tone, 0, 32000, info, found)
    assert changed.shape == (32000,)
    assert pitch(changed) == pytest.approx(hz, abs=2)
    assert float(changed.std() / plain.std()) == pytest.approx(found.gain, rel=0.1)


@given(st.floats(-12, 12), st.floats(-0.2, 0.2), st.integers(8000, 24000))
@settings(max_examples=30, deadline=None)
def test_a_changed_sound_is_long_enough_for_its_crop(semitones: float, faster: float, samples: int) -> None:
    """A sound that starts with a burst: at the end of the crop the burst would be heard again."""
    change = SoundChange(1.0, 2 ** (semitones / 12), 1 + faster)
    wave = torch.zeros(change.samples_needed(samples))
    wave[:400] = 0.5
    assert float(change.apply(wave, 16000, samples)[samples // 2 :].abs().max()) < 0.01


def test_augmentation_changes_all_crops_alike_and_only_in_training(tone: Path) -> None:
    crops = [Crop("acoustic", 2.0, 16000, normalized=False), Crop("semantic", 2.0, 16000, normalized=True)]
    config = AugmentConfig(gain_db=12)
    plain, changed = (SoundDataset([tone], crops, 0, None, augment)[3].waves for augment in (None, config))
    gain = float(changed["acoustic"].std() / plain["acoustic"].std())
    assert abs(gain - 1) > 0.05
    assert torch.allclose(changed["acoustic"], plain["acoustic"] * gain, atol=1e-4)
    assert torch.allclose(changed["semantic"], plain["semantic"], atol=1e-3)


def test_preprocessing_stores_versions_of_a_crop(stack: Stack, sounds: Path) -> None:
    config = DataPreprocessorConfig(folder=str(sounds), results_folder="", repeat=3, augment=AugmentConfig(gain_db=9))
    prepared = CropPreparation([sounds / "0.wav"], stack.config, config, StatisticsCache())
    levels = [float(crop.waves["acoustic"].std()) for crop in prepared[0].crops]
    assert len(set(levels)) == 3
    assert levels == [float(crop.waves["acoustic"].std()) for crop in prepared[0].crops]


def test_preprocessing_changes_no_validation_file(stack: Stack, sounds: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "train" / "0.wav", tmp_path / "valid" / "1.wav"]
    for path in paths:
        path.parent.mkdir()
        path.symlink_to(sounds / path.name)
    settings = {"folder": str(tmp_path), "results_folder": "", "repeat": 3}
    config = DataPreprocessorConfig(**settings, augment=AugmentConfig(gain_db=9))
    training, validation = CropPreparation(paths, stack.config, config, StatisticsCache())
    plain = CropPreparation(paths, stack.config, DataPreprocessorConfig(**settings), StatisticsCache())[1].crops[0]
    assert len(training.crops) == 3
    (crop,) = validation.crops
    assert all(torch.equal(wave, plain.waves[kind]) for kind, wave in crop.waves.items())


@pytest.fixture
def captioned(tmp_path: Path, sounds: Path) -> Path:
    """The sounds, all with the same caption."""
    folder = tmp_path / "captioned"
    folder.mkdir()
    for path in sorted(sounds.glob("[0-9].wav")):
        (folder / path.name).symlink_to(path)
        (folder / path.name).with_suffix(".txt").write_text("slow sad tune\n")
    return folder


def test_captions_come_beside_or_in_a_list(captioned: Path) -> None:
    (captioned / "0.txt").unlink()
    (captioned / "captions.jsonl").write_text('{"file": "0.wav", "captions": ["fast", "quick"]}\n')
    paths = sorted(captioned.glob("*.wav"))
    found = captions_of(paths, captioned)
    assert found[captioned / "0.wav"] == ("fast", "quick")
    assert found[captioned / "1.wav"] == ("slow sad tune",)
    (captioned / "2.txt").unlink()
    (captioned / "2.json").write_text('{"prompt": "a tune that was generated", "seed": 0}')
    assert captions_of(paths, captioned)[captioned / "2.wav"] == ("a tune that was generated",)


def test_captions_give_a_share_of_the_clap_tokens(
    tmp_path: Path, stack: Stack, captioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From sound and from a store alike; a share of 1 gives all examples the caption's tokens."""
    from open_musiclm.training.stage_trainer import StageTrainer

    seen: list[torch.Tensor] = []
    whole = StageTrainer.tokens_of

    def watched(self: StageTrainer, batch: object) -> list[torch.Tensor]:
        ids = whole(self, batch)  # type: ignore[arg-type]
        seen.append(ids[0])
        return ids

    monkeypatch.setattr(StageTrainer, "tokens_of", watched)
    wanted = stack.tokenizer().prompt_ids(["slow sad tune"])
    steps = {"num_train_steps": 2, "save_results_every": 2}
    train(stack, tmp_path / "sound", captioned, **steps, caption_share=1.0)
    assert all((ids == wanted).all() for ids in seen)
    section = {"folder": str(captioned), "results_folder": str(tmp_path / "store"), "num_workers": 0}
    (tmp_path / "p.json").write_text(json.dumps({"data_preprocessor_cfg": section}))
    configs = ["--model_config", stack.model_config, "--training_config", tmp_path / "p.json"]
    run("preprocess_data", *configs, *tokenizers(stack))
    seen.clear()
    train(stack, tmp_path / "half", tmp_path / "store", **steps, caption_share=0.5, use_preprocessed_data=True)
    are_captions = [bool((row == wanted[0]).all()) for ids in seen for row in ids]
    assert 0 < sum(are_captions) < len(are_captions)

    for captions in (*captioned.rglob("*.txt"), *captioned.rglob("*.jsonl")):
        captions.unlink()
    run("preprocess_data", *configs, *tokenizers(stack))
    with pytest.raises(UserError, match=rf"has no {CAPTION_TOKENS_NAME}"):
        train(stack, tmp_path / "gone", tmp_path / "store", **steps, caption_share=0.5, use_preprocessed_data=True)


def test_captions_with_faults_are_told(tmp_path: Path, captioned: Path, stack: Stack, tokens: Path) -> None:
    (captioned / "3.txt").write_text(" \n")
    (captioned / "captions.jsonl").write_text('{"file": "gone.wav", "caption": "slow"}\n')
    lines = "\n".join(check_data(captioned, {}))
    assert "captions  2 faults" in lines
    assert "3.txt: holds no caption; write a sentence that describes 3.wav, or remove this file" in lines
    assert "which is no sound file below" in lines
    with pytest.raises(UserError, match=r"3.txt: holds no caption"):
        train(stack, tmp_path / "run", captioned, num_train_steps=1, caption_share=0.5)
    with pytest.raises(UserError, match=rf"has no {CAPTION_TOKENS_NAME}"):
        train(stack, tmp_path / "run", tokens, num_train_steps=1, caption_share=0.5, use_preprocessed_data=True)
    assert Captions().files == 0
    damaged = tmp_path / CAPTION_TOKENS_NAME
    damaged.write_text('{"0.wav": [[1, 2, 99]]}')
    from open_musiclm.tokens import token_streams

    with pytest.raises(UserError, match="expected lists of 3 ids below 40"):
        read_caption_tokens(tmp_path, token_streams(stack.config)["clap"])
