"""How much memory a training step of each stage takes on a GPU: computed without one, an upper estimate.

The forward pass runs on torch's fake tensors, which have the shapes and types that a GPU's would have under bfloat16
autocast, and no numbers. Counted are 16 bytes a weight (itself, its gradient, AdamW's two averages), all that is kept
for the backward pass, and once more what the part that keeps most (a block, or the logits with their loss) keeps, for
its gradients. With checkpointing blocks keep only their inputs, one of them all, and autocast its copies of weights.
Attention keeps queries, keys, values, its output and a number for each query; its bias, a number for each pair of
positions, is there once for all blocks, and twice more as its gradient. Not counted: the CUDA context and
libraries' own buffers, for which a tenth of the card is left free, and what several GPUs need to exchange gradients.

    python benchmarks/training_memory.py --model_config configs/model/musiclm_small.json

`--check` compares, on a CPU's types: what a real step and a fake one keep, and the estimate with the peak that torch's
MemTracker finds in fake steps, backward pass and AdamW included.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from generate import window_ids
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from training_fit import GIGABYTES, LEFT_FREE

from open_musiclm import cli
from open_musiclm.config import ModelConfig, StageName, load_model_config
from open_musiclm.models.position_bias import PositionTimes
from open_musiclm.models.stages import STAGE_NAMES, Stage, build_stage

_BYTES_A_WEIGHT, _BYTES_A_COPY = 16, 2
_CHECKED_BATCH = 8


@dataclass(frozen=True)
class Step:
    """Bytes of one step: of weights and optimizer, kept for the backward pass, and of the busiest part beside that."""

    weights: int
    kept: int
    busiest: int

    @property
    def total(self) -> int:
        """The estimate of the peak."""
        return self.weights + self.kept + self.busiest


class Kept:
    """What autograd keeps, each storage once, without the weights themselves."""

    def __init__(self, stage: Stage) -> None:
        self.tensors: dict[int, Tensor] = {}
        self._weights = {_storage(weight) for weight in stage.parameters()}

    def keep(self, tensor: Tensor) -> Tensor:
        """The hook of autograd."""
        if _storage(tensor) not in self._weights:
            self.tensors[_storage(tensor)] = tensor  # kept alive, so that no other takes its place
        return tensor

    @property
    def bytes(self) -> int:
        """All that is kept so far."""
        return sum(map(_bytes, self.tensors.values()))


class _Attention(torch.autograd.Function):
    """The memory of a GPU's attention kernel: what it makes and what it keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        result, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, result, sums)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(given) for given in ctx.saved_tensors[:4])


@dataclass(frozen=True)
class FakeAttention:
    """In the place of `DenseAttention`, for which torch chooses its kernel where there is a GPU."""

    bias: Tensor

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
        return _Attention.apply(query, key, value, self.bias)


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument("--stages", choices=STAGE_NAMES, nargs="+", default=STAGE_NAMES, help="which stages")
    parser.add_argument("--check", action="store_true", help="compare a fake step with a real one on this CPU")
    return parser


def main(arguments: argparse.Namespace) -> None:
    config = load_model_config(arguments.model_config)
    if arguments.check:
        for name in arguments.stages:
            _check(config, name)
        return
    _say_what_fits(arguments.model_config, config, arguments.stages)


def _say_what_fits(path: Path, config: ModelConfig, names: list[StageName]) -> None:
    cli.say(f"{path}, computed, torch {torch.__version__}\n")
    cli.say(
        "| stage | checkpointing | weights, GB | an example, GB | " + " | ".join(f"{n} GB" for n in GIGABYTES) + " |"
    )
    cli.say("| --- " * (len(GIGABYTES) + 4) + "|")
    for name in names:
        for checkpointing in (False, True):
            one, two = (step(config, name, batch, checkpointing) for batch in (8, 9))
            example = two.total - one.total
            fixed = one.total - 8 * example
            room = [size * 1e9 * (1 - LEFT_FREE) - fixed for size in GIGABYTES]
            cells = [
                f"{one.weights / 1e9:.2f}",
                f"{example / 1e9:.2f}",
                *(str(max(int(r // example), 0)) for r in room),
            ]
            cli.say(f"| {name} | {'yes' if checkpointing else 'no'} | " + " | ".join(cells) + " |")


def step(config: ModelConfig, name: StageName, batch: int, checkpointing: bool, device: str = "cuda") -> Step:
    """The memory of a step of stage `name`."""
    with FakeTensorMode():
        stage = fake_stage(config, name, device)
        transformer, kept, marks, inputs = stage.layout.transformer, Kept(stage), [], []
        biases: list[int] = []
        transformer.blocks[0].register_forward_pre_hook(lambda _, given: biases.append(_bytes(given[1].bias)))
        for block in transformer.blocks:
            block.register_forward_pre_hook(lambda _, given: inputs.append(_bytes(given[0])))
            block.register_forward_pre_hook(lambda *_: marks.append(kept.bytes))
        transformer.register_forward_hook(lambda *_: marks.append(kept.bytes))
        with torch.autograd.graph.saved_tensors_hooks(kept.keep, _same), _autocast(device):
            loss = _loss(stage, config, name, batch, device)
        assert loss.device.type == device
    weights = sum(weight.numel() for weight in stage.parameters())
    parts = [after - before for before, after in pairwise([*marks, kept.bytes])]
    gradients = 2 * sum(biases)  # of the bias: one block's, and the sum of those after it
    if not checkpointing:
        return Step(_BYTES_A_WEIGHT * weights, kept.bytes, max(parts) + gradients)
    *blocks, logits = parts
    copies, busiest = _BYTES_A_COPY * weights, max(*blocks, logits) * 2 + gradients
    return Step(_BYTES_A_WEIGHT * weights, kept.bytes - sum(blocks) + sum(inputs) + copies, busiest)


def fake_stage(config: ModelConfig, name: StageName, device: str) -> Stage:
    """Stage `name` in training mode, attending as a GPU's kernel does as far as memory goes."""
    with torch.device(device):
        stage = build_stage(name, config).train()
    transformer = stage.layout.transformer
    whole = transformer._attend

    def attention(key_mask: Tensor, times: PositionTimes) -> FakeAttention:
        return FakeAttention(whole(key_mask, times).bias)  # type: ignore[attr-defined]

    transformer._attend = attention  # type: ignore[method-assign]
    return stage


def simulated_peak(config: ModelConfig, name: StageName, batch: int, checkpointing: bool) -> int:
    """The most bytes at any time in two fake steps of two batches each, with a CPU's types."""
    with FakeTensorMode():
        stage = fake_stage(config, name, "cpu")
        stage.layout.transformer.gradient_checkpointing = checkpointing
        optimizer = torch.optim.AdamW(stage.parameters(), fused=True)
        tracker = MemTracker()
        tracker.track_external(stage, optimizer)
        with tracker:
            for _ in range(2):
                for _ in range(2):
                    with torch.autocast("cpu", torch.bfloat16):
                        loss = _loss(stage, config, name, batch, "cpu")
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
        with torch.autograd.graph.saved_tensors_hooks(kept.keep, _same), torch.autocast("cpu", torch.bfloat16):
            _loss(stage, config, name, 1, "cpu")
        return kept.bytes


def _check(config: ModelConfig, name: StageName) -> None:
    real, fake = kept_on_cpu(config, name, fake=False), kept_on_cpu(config, name, fake=True)
    cli.say(f"{name}: kept by a real step {real / 1e6:.1f} MB, by a fake one {fake / 1e6:.1f} MB")
    for checkpointing in (False, True):
        estimate = step(config, name, _CHECKED_BATCH, checkpointing, "cpu").total
        peak = simulated_peak(config, name, _CHECKED_BATCH, checkpointing)
        how = "with checkpointing" if checkpointing else "without"
        cli.say(f"  batch {_CHECKED_BATCH}, {how}: estimate {estimate / 1e9:.2f} GB, {estimate / peak:.2f} of the peak")


def _loss(stage: Stage, config: ModelConfig, name: StageName, batch: int, device: str) -> Tensor:
    conditioning, predicted = window_ids(stage, config, name, batch, config.window_seconds(name), device)
    return stage([*conditioning, predicted], None, torch.zeros(batch, dtype=torch.int32, device=device)).loss


@contextmanager
def _autocast(device: str) -> Iterator[None]:
    """bfloat16 autocast; torch.autocast itself refuses where there is no GPU."""
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, False)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


if __name__ == "__main__":
    cli.run(main, arguments())
