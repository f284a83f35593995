"""The memory of a training step of each stage on a GPU: an upper estimate, computed without one.

`open_musiclm/training/step_memory.py` says what is counted: 16 bytes a weight (itself, its gradient, AdamW's two
averages), all that is kept for the backward pass, and the temporary memory of the largest part. Not counted: the CUDA
context and libraries' own buffers, for which a tenth of the GPU is left free, and what several GPUs need to exchange
gradients.

    python benchmarks/training_memory.py --model_config configs/model/musiclm_small.json

`--check` compares, on a CPU's types: what a real step and a fake one keep, and the estimate with the peak that torch's
MemTracker finds in fake steps, backward pass and AdamW included.
"""

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from training_fit import GIGABYTES, LEFT_FREE

from open_musiclm import cli
from open_musiclm.config import STAGE_NAMES, ModelConfig, StageName, load_model_config
from open_musiclm.models.stages import build_stage
from open_musiclm.training.step_memory import (
    Kept,
    StepMemory,
    StepPlan,
    fake_loss,
    fake_stage,
    gpu_attention,
    gpu_step,
)

_CHECKED_BATCH = 8


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument("--stages", choices=STAGE_NAMES, nargs="+", help="which stages (default: all)")
    parser.add_argument("--check", action="store_true", help="compare a fake step with a real one on this CPU")
    return parser


def main(arguments: argparse.Namespace) -> None:
    config = load_model_config(arguments.model_config)
    stages = arguments.stages or config.stage_names
    for name in stages:
        config.check_stage(name)
    if arguments.check:
        for name in stages:
            _check(config, name)
        return
    _say_what_fits(arguments.model_config, config, stages)


def _say_what_fits(path: Path, config: ModelConfig, names: Sequence[StageName]) -> None:
    cli.print_stdout(f"{path}, computed, torch {torch.__version__}\n")
    cli.print_stdout(
        "| stage | checkpointing | weights, GB | an example, GB | " + " | ".join(f"{n} GB" for n in GIGABYTES) + " |"
    )
    cli.print_stdout("| --- " * (len(GIGABYTES) + 4) + "|")
    for name in names:
        for checkpointing in (False, True):
            one, two = (step(config, name, batch, checkpointing) for batch in (8, 9))
            example = two.total - one.total
            fixed = one.total - 8 * example
            room = [size * 1e9 * (1 - LEFT_FREE) - fixed for size in GIGABYTES]
            cells = [
                f"{(one.weights + one.training) / 1e9:.2f}",
                f"{example / 1e9:.2f}",
                *(str(max(int(r // example), 0)) for r in room),
            ]
            cli.print_stdout(f"| {name} | {'yes' if checkpointing else 'no'} | " + " | ".join(cells) + " |")


def step(config: ModelConfig, name: StageName, batch: int, checkpointing: bool, device: str = "cuda") -> StepMemory:
    """The memory of a step of stage `name`."""
    return gpu_step(StepPlan(config, name, batch, checkpointing), True, device)


def simulated_peak(config: ModelConfig, name: StageName, batch: int, checkpointing: bool) -> int:
    """The peak of two fake steps of two batches each, with a CPU's types."""
    plan = StepPlan(config, name, batch, checkpointing)
    mode = FakeTensorMode()
    stage = fake_stage(plan, "cpu", mode, gpu_attention)
    with mode:
        stage.layout.transformer.gradient_checkpointing = checkpointing
        optimizer = torch.optim.AdamW(stage.parameters(), fused=True)
        tracker = MemTracker()
        tracker.track_external(stage, optimizer)
        with tracker:
            for _ in range(2):
                for _ in range(2):
                    with torch.autocast("cpu", torch.bfloat16):
                        loss = fake_loss(stage, plan, "cpu")
                    loss.backward()
                    tracker.reset_mod_stats()
                optimizer.step()
                optimizer.zero_grad()
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def kept_on_cpu(config: ModelConfig, name: StageName, fake: bool) -> int:
    """Bytes that a step on this CPU keeps for the backward pass, of one example; with fake tensors, or really."""
    with FakeTensorMode() if fake else nullcontext():
        stage = build_stage(name, config).train()
        kept = Kept(stage)
        keeping = torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor)
        with keeping, torch.autocast("cpu", torch.bfloat16):
            fake_loss(stage, StepPlan(config, name, 1), "cpu")
        return kept.bytes


def _check(config: ModelConfig, name: StageName) -> None:
    real, fake = kept_on_cpu(config, name, fake=False), kept_on_cpu(config, name, fake=True)
    cli.print_stdout(f"{name}: kept by a real step {real / 1e6:.1f} MB, by a fake one {fake / 1e6:.1f} MB")
    for checkpointing in (False, True):
        estimate = step(config, name, _CHECKED_BATCH, checkpointing, "cpu").total
        peak = simulated_peak(config, name, _CHECKED_BATCH, checkpointing)
        how = "with checkpointing" if checkpointing else "without"
        cli.print_stdout(
            f"  batch {_CHECKED_BATCH}, {how}: estimate {estimate / 1e9:.2f} GB, {estimate / peak:.2f} of the peak"
        )


if __name__ == "__main__":
    cli.run(main, arguments())
