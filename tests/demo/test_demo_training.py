"""The configs that demo/train.sh trains with."""

import json
from pathlib import Path

import pytest
from helpers import forks
from helpers.paths import DEMO, REPOSITORY

from demo.training_configs import MODELS, TRAININGS
from open_musiclm.config import load_model_config, load_training_config
from open_musiclm.config.backbones import ClapTrainingConfig, MertTrainingConfig
from open_musiclm.config.json_files import load_section
from open_musiclm.training.backbones.train import SpectralCodecTrainingConfig, VocosTrainingConfig


def write(target: Path, *arguments: object) -> dict[str, dict]:
    done = forks.run([REPOSITORY / "demo/training_configs.py", target, *arguments])
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in target.iterdir()}


def test_the_whole_training_has_the_steps_of_the_configs_and_models_beside_them(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert set(written) == {*MODELS, *TRAININGS}
    assert all(written[name] == json.loads((DEMO / f"configs/{name}.json").read_text()) for name in TRAININGS)
    config = load_model_config(tmp_path / "model.json")
    for section, place in (("clap_rvq_cfg", "clap"), ("hubert_kmeans_cfg", "mert"), ("encodec_cfg", "encodec")):
        assert Path(config.backbone(getattr(config, section).model_name)) == tmp_path / place
    assert Path(config.backbone(config.encodec_cfg.decoder)) == tmp_path / "decoder"


def test_a_share_of_the_steps_is_at_least_one_and_a_begun_training_keeps_its_configs(tmp_path: Path) -> None:
    write(tmp_path, "--share", 0.001)
    codec = load_section(tmp_path / "train_spectral_codec.json", SpectralCodecTrainingConfig).trainer
    vocos = load_section(tmp_path / "train_vocos.json", VocosTrainingConfig).trainer
    clap = load_section(tmp_path / "train_clap.json", ClapTrainingConfig).trainer
    mert = load_section(tmp_path / "train_mert.json", MertTrainingConfig).trainer
    assert (codec.num_train_steps, vocos.num_train_steps, clap.num_train_steps, mert.num_train_steps) == (2, 3, 5, 1)
    for name in ("training_bundle", "training_short_windows"):
        folders = (tmp_path, REPOSITORY / "demo/configs")
        steps, shipped = (
            load_training_config(folder / f"{name}.json").semantic_trainer_cfg.num_train_steps for folder in folders
        )
        assert steps == max(round(0.001 * shipped), 1)
    before = write(tmp_path)
    assert before["train_vocos"]["trainer"]["num_train_steps"] == 3


@pytest.mark.parametrize("share", ["0", "-1", "nan", "much"])
def test_a_share_that_is_none_is_one_line(tmp_path: Path, share: str) -> None:
    done = forks.run([REPOSITORY / "demo/training_configs.py", tmp_path / "configs", f"--share={share}"])
    assert done.returncode == 2
    assert "--share" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "configs").exists()
