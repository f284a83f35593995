"""Preflight: estimates memory and disk of a stage's training before it starts; a run that cannot fit is an error."""

import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from torch import nn

from open_musiclm.checkpoints import CHECKPOINTS_FOLDER, saved_steps
from open_musiclm.config import ModelConfig, StageTrainerConfig
from open_musiclm.config.lora import LoraConfig
from open_musiclm.devices import choose_precision
from open_musiclm.errors import UserError
from open_musiclm.terminal import print_stderr
from open_musiclm.training.run import Run
from open_musiclm.training.step_memory import FLOAT_BYTES, StepMemory, StepPlan, cpu_step, gpu_step

LEFT_FREE = 0.1  # of a GPU: for the driver, fragments, and another program's window
# Bytes of main memory per byte of activations: glibc does not reuse all freed memory. Measured: 1.45 to 2.4 on small
# stages, the lowest in the frames layout, the highest with gradient checkpointing.
RESIDENT = 1.8
_CGROUP = Path("/sys/fs/cgroup")
_KEPT_BESIDE = 2  # checkpoints on the disk beside `keep_last`: the best one, and the one that is being written
_SMALLEST_ADVICE = LoraConfig(rank=16)


@dataclass(frozen=True)
class Preflight:
    """Bytes that a run needs, and bytes that are available.

    `held` is the memory of the process now, with the tokenizers; `present` is the part of the step in it.
    """

    step: StepMemory
    held: int
    present: int
    free: int
    checkpoint: int
    checkpoints: int
    disk_free: int

    @property
    def memory(self) -> int:
        """The estimated peak of the process, or of its memory on the GPU."""
        return self.held - self.present + self.step.total

    @property
    def disk(self) -> int:
        """The size of the run's checkpoints."""
        return self.checkpoint * self.checkpoints

    def describe(self) -> str:
        """One line for the person at the terminal."""
        step = self.step
        return (
            f"preflight: {_gb(self.memory)} of memory at the peak: {_gb(step.weights)} weights, {_gb(step.training)} "
            f"gradients and optimizer, {_gb(step.activations)} activations, {_gb(self.held - self.present)} other; "
            f"available: {_gb(self.held + self.free)}; {_gb(self.disk)} of disk for {self.checkpoints} checkpoints; "
            f"{_gb(self.disk_free)} are free"
        )


def preflight(config: StageTrainerConfig, model_config: ModelConfig, stage: nn.Module, run: Run) -> Preflight:
    """The estimate for training `stage` with `config`; call it after everything else is loaded."""
    accelerator, device = run.accelerator, run.accelerator.device
    step = _step(_plan(config, model_config, accelerator.num_processes, accelerator.is_fsdp2), config, device)
    kept = config.keep_last + _KEPT_BESIDE - (len(saved_steps(run.folder)) if run.resumes_in_place else 0)
    return Preflight(
        step,
        _held(device),
        sum(weight.nbytes for weight in stage.parameters() if weight.device.type == device.type),
        _free(device, accelerator.num_processes),
        _checkpoint_bytes(stage, config),
        max(kept, 1),
        shutil.disk_usage(_existing(run.folder)).free + _removed(run),
    )


def check_preflight(config: StageTrainerConfig, model_config: ModelConfig, stage: nn.Module, run: Run) -> None:
    """Prints the estimate for training `stage`. Raises UserError, with values that fit, if memory or disk is too small.

    If torch cannot simulate a step, prints a line, and training starts without this check.
    """
    try:
        found = preflight(config, model_config, stage, run)
    except Exception as error:  # private parts of torch: another version may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        print_stderr(f"{config.stage}: preflight: cannot be computed here ({reason}); training begins without it")
        return
    if run.accelerator.is_main_process:
        print_stderr(f"{config.stage}: {found.describe()}")
    _refuse(found, config, model_config, run.accelerator)


def _refuse(found: Preflight, config: StageTrainerConfig, model_config: ModelConfig, accelerator: Accelerator) -> None:
    section, free = f"{config.stage}_trainer_cfg", found.free + found.present
    if found.step.total > free:
        fitting = list(
            _advice(
                _plan(config, model_config, accelerator.num_processes, accelerator.is_fsdp2),
                config,
                accelerator.device,
                free,
            )
        )
        advice = f"what fits: {'; '.join(fitting)}" if fitting else "no setting makes it fit; take a smaller model"
        raise UserError(
            f"{section}: a step takes {_gb(found.step.total)} of memory, and {_gb(free)} are free; {advice}"
        )
    if found.disk > found.disk_free:
        fits = found.checkpoint * (1 + _KEPT_BESIDE) <= found.disk_free
        advice = "keep_last 1 fits" if fits else "free some, name another --results_folder, or train with lora"
        raise UserError(
            f"{section}: {found.checkpoints} checkpoints of {_gb(found.checkpoint)} take {_gb(found.disk)} of disk, "
            f"and {_gb(found.disk_free)} are free; {advice}"
        )


def _plan(config: StageTrainerConfig, model_config: ModelConfig, processes: int, sharded: bool) -> StepPlan:
    return StepPlan(
        model_config,
        config.stage,
        config.batch_size,
        config.gradient_checkpointing,
        config.lora,
        averaged=config.ema_decay is not None,
        accumulates=config.grad_accum_every > 1,
        processes=processes,
        shards=processes if sharded else 1,
    )


def _advice(plan: StepPlan, config: StageTrainerConfig, device: torch.device, free: int) -> Iterator[str]:
    """Settings that fit into `free` bytes, those closest to the config first."""
    ways = [("", plan)]
    if not plan.checkpointing:
        ways.append((" and gradient_checkpointing true", replace(plan, checkpointing=True)))
    if plan.lora is None:
        lora = replace(plan, checkpointing=True, lora=_SMALLEST_ADVICE)
        ways.append((" with --lora_rank 16 and gradient_checkpointing true", lora))
    for words, way in ways:
        batch = _largest_batch(way, config, device, free)
        if batch:
            every = -(-config.batch_size * config.grad_accum_every // batch)
            yield f"batch_size {batch} with grad_accum_every {every}{words}"
    if not config.use_preprocessed_data:
        yield "use_preprocessed_data frees the tokenizers' memory"


def _largest_batch(plan: StepPlan, config: StageTrainerConfig, device: torch.device, free: int) -> int:
    """The largest batch, at most the configured one halved again and again, that fits; 0 if none does."""
    one, two = (_step(replace(plan, batch=batch, accumulates=True), config, device).total for batch in (1, 2))
    batch = plan.batch
    while batch and one + (batch - 1) * (two - one) > free:
        batch //= 2
    return batch


def _step(plan: StepPlan, config: StageTrainerConfig, device: torch.device) -> StepMemory:
    bfloat16 = choose_precision(config.precision, device) == "bfloat16"
    step = cpu_step(plan, bfloat16) if device.type == "cpu" else gpu_step(plan, bfloat16)
    activations = round(step.activations * RESIDENT) if device.type == "cpu" else step.activations
    return StepMemory(step.weights // plan.shards, step.training // plan.shards, activations)


def _held(device: torch.device) -> int:
    """Bytes that this process uses on the device now, or in main memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def _free(device: torch.device, processes: int) -> int:
    """Bytes that this process may still allocate."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(int(free + cached - LEFT_FREE * total), 0)
    return min(psutil.virtual_memory().available, *_limits()) // processes


def _limits() -> Iterator[int]:
    """Bytes left below the limits of the container and of the process."""
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        if limit != "max":
            yield max(int(limit) - int(used), 0)
    except (OSError, ValueError):
        pass
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        yield max(most - psutil.Process().memory_info().rss, 0)
    yield 1 << 62


def _checkpoint_bytes(stage: nn.Module, config: StageTrainerConfig) -> int:
    """Weights, or the adapter's; both averages of the optimizer; and the weights in training beside their average."""
    trained = sum(weight.numel() for weight in stage.parameters() if weight.requires_grad)
    written = trained if config.lora is not None else sum(weight.numel() for weight in stage.parameters())
    return FLOAT_BYTES * (written + trained * (2 + (config.ema_decay is not None)))


def _removed(run: Run) -> int:
    """Bytes of the checkpoints of an earlier run that this one removes before it writes its own."""
    if run.resumes_in_place or not run.options.overwrite:
        return 0
    files = (run.folder / CHECKPOINTS_FOLDER).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(path))


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
