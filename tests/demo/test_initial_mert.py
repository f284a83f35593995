"""The MERT directory that train_mert can start from."""

import json
import subprocess
from pathlib import Path

import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY
from transformers import HubertModel

from demo.backbones.onset_bank import start_as_onset_bank
from open_musiclm.config.backbones import MertArchitecture
from open_musiclm.training.backbones.mert import build_mert


def run(target: Path, config: Path) -> subprocess.CompletedProcess[str]:
    return forks.run([REPOSITORY / "demo/initial_mert.py", target, "--config", config, "--seed", "3"])


def write_config(folder: Path, architecture: dict) -> Path:
    trainer = {"folder": "sounds", "num_train_steps": 1, "batch_size": 1, "lr": 0.001}
    trainer |= {"save_model_every": 1, "save_results_every": 1}
    path = folder / "mert.json"
    path.write_text(json.dumps({"architecture": architecture, "trainer": trainer}))
    return path


def test_a_directory_is_written(tmp_path: Path) -> None:
    architecture = {"samples_per_frame": 640, "layers": 2, "feature_projection_norm": False}
    done = run(tmp_path / "mert", write_config(tmp_path, architecture))
    assert done.returncode == 0, done.stderr
    torch.manual_seed(3)
    expected = build_mert(MertArchitecture.model_validate(architecture))
    start_as_onset_bank(expected)
    found = HubertModel.from_pretrained(tmp_path / "mert")
    assert found.config.feat_proj_layer_norm == expected.config.feat_proj_layer_norm
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor)


def test_an_onset_bank_behind_a_norm_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "mert", write_config(tmp_path, {"layers": 2}))
    assert done.returncode == 2
    assert "feature_projection_norm" in done.stderr
    assert not (tmp_path / "mert").exists()


def test_the_demo_starts_as_the_config_says(tmp_path: Path) -> None:
    """demo/train.sh writes the directory that demo/configs/train_mert.json names."""
    config = json.loads((DEMO / "configs/train_mert.json").read_text())
    script = (DEMO / "train.sh").read_text()
    assert config["trainer"]["init"] == "results/demo_model/initial_mert"
    assert 'initial_mert.py "$OUT/initial_mert" --config "$CONFIGS/train_mert.json"' in script
    assert run(tmp_path / "mert", DEMO / "configs/train_mert.json").returncode == 0
