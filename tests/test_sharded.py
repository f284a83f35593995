"""Weights sharded over two processes by FSDP2, through gloo on CPUs."""

import json
from pathlib import Path

import pytest
import torch
from helpers.processes import SHARDED, SHARDED_ENVIRONMENT, launch_script, run_script
from helpers.small_training import model_config

from open_musiclm.checkpoints import load_weights
from open_musiclm.models.stages import load_stage

SCRIPT = Path(__file__).parent / "helpers" / "small_training.py"


def options(folder: Path, steps: int, processes: int, *words: object) -> list[object]:
    sharded = ["--sharded"] if processes > 1 else []
    return ["--results_folder", folder, "--steps", steps, "--batch_size", 4 // processes, *sharded, *words]


def train(folder: Path, steps: int, processes: int, *words: object) -> str:
    environment = SHARDED_ENVIRONMENT if processes > 1 else {}
    return run_script(SCRIPT, options(folder, steps, processes, *words), processes, environment)


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line[key] for line in lines for key in ("loss", "validation_loss") if key in line]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "layout"), [("semantic", []), ("coarse", ["--frames", "--ema_decay", 0.9])])
def test_sharded_training_is_saved_whole_and_goes_on_sharded_or_not(
    tmp_path: Path, stage: str, layout: list[str]
) -> None:
    alone, folder = tmp_path / "alone", tmp_path / "run"
    train(alone, 15, 1, *layout)
    output = train(folder, 5, 2, *layout) if layout else launch_script(SCRIPT, options(folder, 5, 2), 2, SHARDED)
    assert "process 1 gathers 0 and 0" in output  # all of it is process 0's
    train(folder, 10, 2, *layout, "--continue_from_dir", folder)
    train(folder, 15, 1, *layout, "--continue_from_dir", folder)
    assert len(losses(alone)) == 15 + 3
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-4)
    written = torch.load(folder / "checkpoints/step_00000010/optimizer.pt", weights_only=True)
    assert all(type(value) is torch.Tensor for state in written["state"].values() for value in state.values())
    sharded, expected = (load_weights(path / "checkpoints/step_00000010", stage) for path in (folder, alone))
    assert {name: x.shape for name, x in sharded.tensors.items()} == {
        name: x.shape for name, x in expected.tensors.items()
    }
    load_stage(folder / "checkpoints/step_00000010", stage, model_config(), torch.device("cpu"))
