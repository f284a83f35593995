"""Training scripts on two real processes against one with the same batches: the same curves and codebooks."""

import json
from pathlib import Path

import pytest
import torch
from helpers.paths import SCRIPTS
from helpers.processes import run_script
from helpers.run_logs import logged
from helpers.small_stack import Stack

from open_musiclm.checkpoints import load_weights

STAGE = {"stage": "coarse", "num_train_steps": 6, "lr": 3e-3, "lr_warmup": 4, "valid_frac": 0.4, "seed": 3}
STAGE |= {"save_results_every": 3, "save_model_every": 3, "use_preprocessed_data": True, "num_workers": 0}
STAGE |= {"save_reconstructed_wave": False, "precision": "float32"}
RVQ = {"num_train_steps": 3, "accumulate_batches": 2, "valid_frac": 0.3, "save_results_every": 1}
RVQ |= {"num_workers": 0, "save_model_every": 3}
KMEANS = {"feature_extraction_num_steps": 4, "num_workers": 0}


def train(folder: Path, script: str, processes: int, section: dict, model_config: Path, *words: object) -> Path:
    """Runs a script on `processes` processes; returns its results folder."""
    folder.mkdir(exist_ok=True)
    name = {"train_coarse_stage": "coarse"}.get(script, script.removeprefix("train_")) + "_trainer_cfg"
    training_config = folder / f"{processes}.json"
    training_config.write_text(json.dumps({name: section}))
    results = folder / f"{script}_{processes}"
    words = ["--results_folder", results, "--model_config", model_config, "--training_config", training_config, *words]
    run_script(SCRIPTS / f"{script}.py", ["--device", "cpu", "--log_with", "none", *words], processes)
    return results


@pytest.fixture(params=["flat", "frames"])
def dropping(request: pytest.FixtureRequest, tmp_path: Path, stack: Stack) -> Path:
    """The small model with dropout, as the shipped configs have it, in each token layout."""
    content = json.loads(stack.model_config.read_text())
    content["coarse_cfg"] |= {"ff_dropout": 0.3, "token_layout": request.param}
    for section in ("clap_rvq_cfg", "hubert_kmeans_cfg", "encodec_cfg"):
        content[section]["model_name"] = str(stack.folder / content[section]["model_name"])
    (tmp_path / "model.json").write_text(json.dumps(content))
    return tmp_path / "model.json"


@pytest.mark.slow
def test_stage_has_one_curve_and_goes_on_with_it(tmp_path: Path, dropping: Path, tokens: Path) -> None:
    section = {**STAGE, "folder": str(tokens)}
    one = {**section, "batch_size": 4, "grad_accum_every": 2}
    two = {**section, "batch_size": 2, "grad_accum_every": 2}
    alone = train(tmp_path, "train_coarse_stage", 1, one, dropping)
    both = train(tmp_path, "train_coarse_stage", 2, two | {"num_train_steps": 3}, dropping)
    going_on = ["--continue_from_dir", both]
    train(tmp_path, "train_coarse_stage", 2, {**section, "batch_size": 4, "grad_accum_every": 1}, dropping, *going_on)
    for key in ("loss", "accuracy", "learning_rate", "validation_loss", "validation_accuracy"):
        assert logged(both, key) == pytest.approx(logged(alone, key), abs=1e-4), key
    assert logged(alone, "learning_rate")[:4] == pytest.approx([3e-3 * step / 4 for step in (1, 2, 3, 4)])
    assert logged(both, "gradient_norm") == pytest.approx(logged(alone, "gradient_norm"), abs=1e-3)
    assert len(logged(alone, "loss")) == 6


@pytest.mark.slow
def test_clap_rvq_is_trained_on_all(tmp_path: Path, stack: Stack, sounds: Path) -> None:
    section = {**RVQ, "folder": str(sounds)}
    alone = train(tmp_path, "train_clap_rvq", 1, {**section, "batch_size": 4}, stack.model_config)
    both = train(tmp_path, "train_clap_rvq", 2, {**section, "batch_size": 2}, stack.model_config)
    assert logged(both, "loss") == pytest.approx(logged(alone, "loss"), abs=1e-6)
    assert logged(both, "validation_loss") == pytest.approx(logged(alone, "validation_loss"), abs=1e-6)
    expected, found = (load_weights(folder, "clap_rvq").tensors for folder in (alone, both))
    for name, tensor in expected.items():
        assert torch.allclose(found[name].float(), tensor.float(), atol=1e-5), name


@pytest.mark.slow
def test_kmeans_is_fitted_on_features_of_all(tmp_path: Path, stack: Stack, sounds: Path) -> None:
    section = {**KMEANS, "folder": str(sounds)}
    config = stack.model_config
    alone = train(tmp_path, "train_hubert_kmeans", 1, {**section, "feature_extraction_batch_size": 4}, config)
    both = train(tmp_path, "train_hubert_kmeans", 2, {**section, "feature_extraction_batch_size": 2}, config)
    expected, found = (load_weights(folder, "hubert_kmeans").tensors["centroids"] for folder in (alone, both))
    assert torch.allclose(found, expected, atol=1e-4)
