"""CLAP learns to hear through the codec: the demo's script, on a few clips and the bundle of the repository."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from open_musiclm.config import load_model_config
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.encodec import Codec

REPOSITORY = Path(__file__).parent.parent
MODEL, BUNDLE = REPOSITORY / "configs/demo/model.json", REPOSITORY / "configs/demo/bundle"
CPU = torch.device("cpu")


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Plucked tones, their captions, and the configs of both scripts."""
    folder = tmp_path_factory.mktemp("clips")
    time = np.arange(12 * 24000) / 24000
    lines = []
    for number, hz in enumerate((220, 330, 495)):
        tone = 0.3 * np.sin(2 * np.pi * hz * time) * np.exp(-4 * (time % 0.5))
        soundfile.write(folder / f"{number}.wav", tone, 24000)
        lines.append(json.dumps({"file": f"{number}.wav", "caption": f"tone {number}"}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    preprocessor = {"folder": str(folder), "results_folder": str(folder / "tokens"), "num_workers": 0}
    preprocessor |= {"max_audio_length_seconds": 12}
    (folder / "training.json").write_text(json.dumps({"data_preprocessor_cfg": preprocessor}))
    clap = json.loads((REPOSITORY / "scripts/demo/train_clap.json").read_text())
    clap["trainer"] |= {"folder": str(folder), "spectrogram_folder": None}
    (folder / "clap.json").write_text(json.dumps(clap))
    return folder


@pytest.mark.slow
def test_coded_sound_comes_nearer_to_the_clean_one(clips, tmp_path):
    tokenizers = ("--rvq_path", BUNDLE, "--kmeans_path", BUNDLE, "--device", "cpu")
    done = run("preprocess_data.py", "--model_config", MODEL, "--training_config", clips / "training.json", *tokenizers)
    assert done.returncode == 0, done.stderr
    configs = ("--config", clips / "clap.json", "--model_config", MODEL, "--tokens", clips / "tokens")
    done = run("demo/train_hearing.py", BUNDLE / "clap", tmp_path / "clap", *configs, "--steps", 6)
    assert done.returncode == 0, done.stderr
    before = load_model_config(MODEL)
    after = before.model_copy(
        update={"clap_rvq_cfg": before.clap_rvq_cfg.model_copy(update={"model_name": str(tmp_path / "clap")})}
    )
    clean = torch.from_numpy(soundfile.read(clips / "1.wav", dtype="float32")[0])
    codec = Codec.load(before, CPU)
    coded = codec.decode(codec.encode(clean[None])[..., :3])
    wanted = Clap.load(before, CPU).embed_audio(_at_48_khz(clean[None]))

    def likeness(config) -> float:
        return float((Clap.load(config, CPU).embed_audio(_at_48_khz(coded)) * wanted).sum())

    assert likeness(after) > likeness(before)


def _at_48_khz(waves: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(waves[:, None], scale_factor=2, mode="linear")[:, 0]


@pytest.mark.parametrize("script", ["train_hearing.py", "train_prompts.py"])
def test_a_folder_without_a_clap_is_one_clear_line(clips, tmp_path, script):
    more = ("--model_config", MODEL, "--tokens", clips) if script == "train_hearing.py" else ()
    done = run(f"demo/{script}", tmp_path / "nowhere", tmp_path / "out", "--config", clips / "clap.json", *more)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'nowhere'}: no config.json")
