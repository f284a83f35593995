"""The preflight: its estimate against a real step's peak on a CPU, and what it says where a run cannot fit."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from helpers.paths import REPOSITORY
from helpers.small_stack import CPU, Stack
from helpers.small_training import model_config
from test_trainers import run, tokenizers

from open_musiclm.config import SemanticConfig, StageTrainerConfig
from open_musiclm.config.lora import LoraConfig
from open_musiclm.errors import UserError
from open_musiclm.models.lora import add_adapter
from open_musiclm.models.stages import build_stage
from open_musiclm.training import preflight
from open_musiclm.training.step_memory import LiveBytes, StepPlan, cpu_step, fake_loss, gpu_step

MEASURED = """
import resource, sys
from pathlib import Path
import psutil, torch
sys.path.insert(0, "tests")
from test_preflight import plan_of, train_two_steps
from open_musiclm.training.preflight import RESIDENT
from open_musiclm.training.step_memory import cpu_step

torch.set_num_threads(1)
plan = plan_of(dim=256, batch=3, rank=0, checkpointing=False)
estimate = cpu_step(plan, bfloat16=False)
held = psutil.Process().memory_info().rss
train_two_steps(plan)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
if Path("/proc/self/status").exists():  # on Linux ru_maxrss begins with that of the process which started this one
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
print(held + estimate.weights + estimate.training + round(estimate.activations * RESIDENT), peak)
"""


def plan_of(dim: int, batch: int, rank: int, checkpointing: bool) -> StepPlan:
    section = SemanticConfig(dim=dim, depth=2, heads=4, relative_position_bias_type="t5")
    config = model_config().model_copy(update={"semantic_cfg": section})
    return StepPlan(config, "semantic", batch, checkpointing, LoraConfig(rank=rank) if rank else None)


def train_two_steps(plan: StepPlan) -> int:
    """Two real steps of two batches; returns the most bytes that living tensors had at any time."""
    stage = build_stage(plan.name, plan.config)
    if plan.lora is not None:
        add_adapter(stage, plan.lora)
    stage.layout.transformer.gradient_checkpointing = plan.checkpointing
    optimizer = torch.optim.AdamW([weight for weight in stage.parameters() if weight.requires_grad], fused=True)
    with LiveBytes() as live:
        for _ in range(2):
            for _ in range(2):
                fake_loss(stage, plan, "cpu").backward()
            optimizer.step()
            optimizer.zero_grad()
    return live.peak + sum(weight.nbytes for weight in stage.parameters())


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_estimate_is_near_what_the_tensors_of_a_step_take(rank: int, checkpointing: bool) -> None:
    plan = plan_of(32, 1, rank, checkpointing)
    assert cpu_step(plan, bfloat16=False).total == pytest.approx(train_two_steps(plan), rel=0.2)


def test_estimate_is_near_the_peak_of_the_process() -> None:
    command = [sys.executable, "-c", MEASURED]
    ratios = []
    for _ in range(3):  # a busy machine takes pages away from a process, so that its peak looks smaller
        found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        estimate, peak = map(int, found.stdout.split())
        ratios.append(estimate / peak)
        if 0.8 <= ratios[-1] <= 1.2:
            return
    pytest.fail(f"estimates relative to peaks: {ratios}")


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


def test_what_fits_on_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice is for as many processes as the run has, and for weights that are sharded among them."""
    config = model_config().model_copy(update={"semantic_cfg": SemanticConfig(dim=256, depth=2, heads=4)})
    trainer = StageTrainerConfig(stage="semantic", folder=".", num_train_steps=1, batch_size=8, lr=1e-3)
    alone, two, sharded = (
        preflight._plan(trainer, config, processes, sharded)
        for processes, sharded in ((1, False), (2, False), (2, True))
    )
    takes = {name: preflight._step(plan, trainer, CPU) for name, plan in (("a", alone), ("t", two), ("s", sharded))}
    assert takes["a"].total < takes["t"].total
    assert takes["s"].training == takes["t"].training // 2
    assert takes["s"].activations == takes["t"].activations
    between = (takes["a"].total + takes["t"].total) // 2
    assert "batch_size 8 " not in next(preflight._advice(two, trainer, CPU, between))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_in_float32_takes_more_of_a_gpu(checkpointing: bool) -> None:
    plan = plan_of(64, 4, 0, checkpointing)
    half, whole = gpu_step(plan, bfloat16=True), gpu_step(plan, bfloat16=False)
    assert 1.2 < whole.activations / half.activations < 2.5
    assert (whole.weights, whole.training) == (half.weights, half.training)


def test_checkpoints_that_overwrite_removes_count_as_free(
    tmp_path: Path, stack: Stack, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(stack, tokens, tmp_path / "run", batch_size=1)
    usage = preflight.shutil.disk_usage("/")
    size = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file())
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage._replace(free=3 * size - size // 2))
    with pytest.raises(UserError, match="checkpoints of"):
        train(stack, tokens, tmp_path / "other", batch_size=1, keep_last=1)
    train(stack, tokens, tmp_path / "run", "--overwrite", batch_size=1, keep_last=1)


def test_a_disk_that_is_too_small_is_said(
    tmp_path: Path, stack: Stack, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = preflight.shutil.disk_usage("/")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    with pytest.raises(UserError, match=r"5 checkpoints of .* GB of disk, and 0.00 GB are free; keep_last 1 fits"):
        train(stack, tokens, tmp_path / "run", batch_size=1)
