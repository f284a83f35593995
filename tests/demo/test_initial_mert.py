"""The MERT directory that train_mert can start from."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY
from transformers import HubertModel

from demo.backbones.filter_bank import start_as_filter_bank
from demo.backbones.onset_bank import start_as_onset_bank
from open_musiclm.config.backbones import MertArchitecture
from open_musiclm.training.backbones.mert import build_mert

STARTS = {"onset_bank": start_as_onset_bank, "filter_bank": start_as_filter_bank}


def run(bank: str, target: Path, config: Path) -> subprocess.CompletedProcess[str]:
    return forks.run([REPOSITORY / "demo/initial_mert.py", bank, target, "--config", config, "--seed", "3"])


def write_config(folder: Path, architecture: dict) -> Path:
    trainer = {"folder": "sounds", "num_train_steps": 1, "batch_size": 1, "lr": 0.001}
    trainer |= {"save_model_every": 1, "save_results_every": 1}
    path = folder / "mert.json"
    path.write_text(json.dumps({"architecture": architecture, "trainer": trainer}))
    return path


@pytest.mark.parametrize("bank", STARTS)
def test_a_directory_of_either_bank_is_written(tmp_path: Path, bank: str) -> None:
    architecture = {"samples_per_frame": 640, "layers": 2, "feature_projection_norm": bank != "onset_bank"}
    done = run(bank, tmp_path / "mert", write_config(tmp_path, architecture))
    assert done.returncode == 0, done.stderr
    torch.manual_seed(3)
    expected = build_mert(MertArchitecture.model_validate(architecture))
    STARTS[bank](expected)
    found = HubertModel.from_pretrained(tmp_path / "mert")
    assert found.config.feat_proj_layer_norm == expected.config.feat_proj_layer_norm
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor)


def test_an_onset_bank_behind_a_norm_is_refused(tmp_path: Path) -> None:
    done = run("onset_bank", tmp_path / "mert", write_config(tmp_path, {"layers": 2}))
    assert done.returncode == 2
    assert "feature_projection_norm" in done.stderr
    assert not (tmp_path / "mert").exists()


def test_the_demo_starts_as_the_config_says(tmp_path: Path) -> None:
    """demo/train.sh writes the directory that demo/configs/train_mert.json names."""
    config = json.loads((DEMO / "configs/train_mert.json").read_text())
    script = (DEMO / "train.sh").read_text()
    assert config["trainer"]["init"] == "results/demo_model/initial_mert"
    assert 'initial_mert.py onset_bank "$OUT/initial_mert" --config "$CONFIGS/train_mert.json"' in script
    assert run("onset_bank", tmp_path / "mert", DEMO / "configs/train_mert.json").returncode == 0
