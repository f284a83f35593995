"""check_data.py: it separates good and bad files, and warns of what is too little for a config."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import forks

from open_musiclm.config import load_model_config, load_training_config
from open_musiclm.data.check import enough_for
from open_musiclm.data.check_files import check_folder

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "configs" / "model" / "musiclm_small.json"
FMA = ROOT / "configs" / "training" / "train_musiclm_fma.json"


def noise(path: Path, seconds: float, sample_hz: int = 24000, channels: int = 1) -> Path:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * sample_hz), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, sample_hz)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise(tmp_path / "good.wav", 3.0)
    noise(tmp_path / "deeper" / "Stereo.FLAC", 12.0, 44100, 2)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("not sound")
    whole = noise(tmp_path / "cut.flac", 4.0).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "silent.wav", np.zeros(24000), 24000)
    soundfile.write(tmp_path / "nan.wav", np.full(24000, np.nan), 24000, subtype="FLOAT")
    return tmp_path


def script(*arguments: str | Path) -> subprocess.CompletedProcess:
    return forks.run([ROOT / "scripts" / "check_data.py", *arguments])


def test_bad_files_are_separated_from_good_ones(folder: Path) -> None:
    problems = {file.path.name: file.problem for file in check_folder(folder)}
    assert {name for name, problem in problems.items() if problem is None} == {"good.wav", "Stereo.FLAC"}
    reasons = {"empty": "empty", "text": "decoded", "cut": "damaged|truncated", "silent": "silent", "nan": "finite"}
    for name, problem in problems.items():
        if problem is not None:
            assert name in problem
            assert any(word in problem for word in reasons[name.split(".")[0]].split("|"))


def test_the_script_lists_everything_and_succeeds(folder: Path, tmp_path: Path) -> None:
    done = script(folder, "--results_folder", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    for word in ("7, of which 2", "44100 Hz: 1", "FLAC: 1", "2: 1", "unusable  5", "nan.wav", "silent.wav"):
        assert word in done.stdout
    for path in [*(ROOT / "configs" / "model").glob("*.json"), *(ROOT / "configs" / "training").glob("*.json")]:
        assert path.name in done.stdout
    assert (tmp_path / "report" / "check_data.txt").read_text() in done.stdout


def test_no_sound_is_misuse(tmp_path: Path) -> None:
    done = script(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_too_little_sound_is_a_warning(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", 3.0, 8000)
    facts, warnings = enough_for(check_folder(tmp_path), load_model_config(SMALL), load_training_config(FMA))
    assert "semantic window 10 s: 100% of the files are shorter" in facts
    text = "\n".join(warnings)
    assert "window of 10 s" in text
    assert "24000 Hz" in text
    assert "at least two usable files" in text
    assert "1024 codes" in text


def test_a_stage_that_the_model_has_not_is_not_mentioned(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", 3.0, 8000)
    model = load_model_config(SMALL.with_name("musiclm_small_32khz.json"))
    facts, warnings = enough_for(check_folder(tmp_path), model, load_training_config(FMA))
    assert any(line.startswith("coarse stage") for line in (*facts, *warnings))
    assert not any("fine" in line.split() for line in (*facts, *warnings))


def test_passes_and_the_steps_that_fit(tmp_path: Path) -> None:
    for name in "ab":
        noise(tmp_path / f"{name}.wav", 10.0)
    facts, warnings = enough_for(check_folder(tmp_path), load_model_config(SMALL), load_training_config(FMA))
    # one file to train on: 200,001 steps of 4 * 8 examples of 10 s, from 10 s of sound
    assert any("1 files to train on, 1 to validate; every second used 6,400,032.0 times" in fact for fact in facts)
    semantic = next(warning for warning in warnings if warning.startswith("semantic stage"))
    assert semantic.endswith("at most 3")


def test_passes_that_repeat_allows(tmp_path: Path) -> None:
    """Training ends after them, however many steps are left."""
    for number in range(40):
        noise(tmp_path / f"{number}.wav", 10.0)
    config = load_training_config(FMA)
    stage = config.semantic_trainer_cfg.model_copy(update={"repeat": 2, "valid_frac": 0.2})
    config = config.model_copy(update={"semantic_trainer_cfg": stage})
    facts, warnings = enough_for(check_folder(tmp_path), load_model_config(SMALL), config)
    assert any(fact.startswith("semantic stage") and "used 2.0 times in 2 steps" in fact for fact in facts)
    assert not any(warning.startswith("semantic stage") for warning in warnings)


def test_names_that_are_no_unicode_are_in_the_report(tmp_path: Path) -> None:
    folder = noise(tmp_path / "sound/a.wav", 2.0).parent
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.m4a")).write_bytes(b"music")
    done = script(folder, "--results_folder", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.m4a" in (tmp_path / "report/check_data.txt").read_text()
