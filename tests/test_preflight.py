"""The preflight: its estimate against a real step's peak on a CPU, and what it says where a run cannot fit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from accelerate.state import AcceleratorState
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack
from test_trainers import run, tokenizers

from open_musiclm.errors import UserError
from open_musiclm.training import preflight

MEASURED = """
import resource, sys
import psutil, torch
from open_musiclm.config import SemanticConfig
from open_musiclm.config.lora import LoraConfig
from open_musiclm.training.preflight import RESIDENT
from open_musiclm.training.step_memory import LiveBytes, StepPlan, cpu_step
sys.path.insert(0, "tests")
from helpers.small_training import model_config
from open_musiclm.models.lora import add_adapter
from open_musiclm.models.stages import build_stage

torch.set_num_threads(1)
rank, checkpointing = int(sys.argv[1]), sys.argv[2] == "True"
section = SemanticConfig(dim=256, depth=2, heads=4, relative_position_bias_type="t5")
config = model_config().model_copy(update={"semantic_cfg": section})
lora = LoraConfig(rank=rank) if rank else None
estimate = cpu_step(StepPlan(config, "semantic", 3, checkpointing, lora), bfloat16=False)
stage = build_stage("semantic", config)
if lora is not None:
    add_adapter(stage, lora)
stage.layout.transformer.gradient_checkpointing = checkpointing
weights = sum(weight.nbytes for weight in stage.parameters())
optimizer = torch.optim.AdamW([weight for weight in stage.parameters() if weight.requires_grad], fused=True)
seconds = config.window_seconds("semantic")
ids = [torch.zeros(3, s.frames(seconds), s.quantizers, dtype=torch.long) for s in stage.sequences]
held = psutil.Process().memory_info().rss - weights
with LiveBytes() as live:
    for _ in range(2):
        for _ in range(2):
            stage(ids, None, torch.zeros(3, dtype=torch.int32)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
resident = held + estimate.weights + estimate.training + round(estimate.activations * RESIDENT)
print(estimate.total, live.peak + weights, resident, peak)
"""


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(("rank", "checkpointing"), [(0, False), (8, True)])
def test_estimate_is_near_the_measured_peak(rank: int, checkpointing: bool) -> None:
    """Two real steps of two batches: the most bytes that living tensors had, and the most that the process had."""
    found = subprocess.run(
        [sys.executable, "-c", MEASURED, str(rank), str(checkpointing)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    estimate, living, resident, peak = map(int, found.stdout.split())
    assert estimate == pytest.approx(living, rel=0.2)
    assert resident == pytest.approx(peak, rel=0.2)


def train(stack: Stack, tokens: Path, folder: Path, *words: object, **section: object) -> None:
    values = {"stage": "coarse", "folder": str(tokens), "num_train_steps": 1, "batch_size": 64, "num_workers": 0}
    values |= {"use_preprocessed_data": True, "save_reconstructed_wave": False, "valid_frac": 0.3, **section}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({"coarse_trainer_cfg": values}))
    configs = ["--model_config", stack.model_config, "--training_config", path, "--results_folder", folder]
    run("train_coarse_stage", *configs, "--log_with", "none", *tokenizers(stack), *words)


def test_what_fits_is_said(
    tmp_path: Path, stack: Stack, tokens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = psutil.virtual_memory()
    monkeypatch.setattr(preflight.psutil, "virtual_memory", lambda: memory._replace(available=20_000_000))
    with pytest.raises(UserError, match=r"a step takes .* of memory, and 0.02 GB are free; what fits: batch") as e:
        train(stack, tokens, tmp_path / "run")
    assert "--lora_rank 16 and gradient_checkpointing true" in str(e.value)
    assert not (tmp_path / "run").exists()
    fitting = int(str(e.value).split("what fits: batch_size ")[1].split()[0])
    train(stack, tokens, tmp_path / "run", batch_size=fitting)
    assert "preflight:" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_said(
    tmp_path: Path, stack: Stack, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = preflight.shutil.disk_usage("/")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    with pytest.raises(UserError, match=r"5 checkpoints of .* GB of disk, and 0.00 GB are free; keep_last 1 fits"):
        train(stack, tokens, tmp_path / "run", batch_size=1)
