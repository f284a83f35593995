"""The memory of a training step of a stage, estimated without running it.

The step runs on torch's fake tensors, which have shapes and types and no numbers. For a CPU the whole step runs, and
the bytes of all living tensors are counted. For a GPU, which need not be there, the forward pass runs with the types
of its precision, and the result is an upper estimate, the sum of

- all tensors saved for the backward pass;
- those of the part that saves most (a block, or the logits with their loss) once more, for its gradients;
- the gradient of the largest weight, before it is added to that of the batches before.

With checkpointing, blocks save only their inputs, except one block that saves everything, and autocast saves its copies
of weights. Attention saves queries, keys, values, its output and a number for each query. Its bias, a number for each
pair of positions, is stored once for all blocks, and twice more as its gradient. Not counted: the CUDA context and
libraries' own buffers.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from open_musiclm.config import ModelConfig, StageName
from open_musiclm.config.lora import LoraConfig
from open_musiclm.models.lora import add_adapter
from open_musiclm.models.position_bias import PositionTimes
from open_musiclm.models.stages import Stage, build_stage

FLOAT_BYTES = 4
_OPTIMIZER_BYTES = 8  # AdamW's two averages of a weight
_COPY_BYTES = 2


@dataclass(frozen=True)
class StepPlan:
    """What decides about the memory of a step of one stage."""

    config: ModelConfig
    name: StageName
    batch: int
    checkpointing: bool = False
    lora: LoraConfig | None = None
    averaged: bool = False  # a moving average of the weights is kept
    accumulates: bool = True  # gradients stay from one batch to the next
    processes: int = 1
    shards: int = 1  # processes that share the weights and the optimizer (FSDP2)


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step: of all weights, of gradients, optimizer and copies of what is trained, and of the rest."""

    weights: int
    training: int
    activations: int

    @property
    def total(self) -> int:
        """The estimate of the peak."""
        return self.weights + self.training + self.activations


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


class LiveBytes(TorchDispatchMode):
    """While entered, counts the bytes of all tensors that operations make, as long as they live; `peak` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted = WeakIdKeyDictionary()

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
        result = operation(*arguments, **(named or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._counted:
            return
        self._counted[storage] = None
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.now -= size


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


def gpu_step(plan: StepPlan, bfloat16: bool, device: str = "cuda") -> StepMemory:
    """The memory of a step on a GPU, under autocast if in `bfloat16`, with its activations estimated from above."""
    copy_bytes = _COPY_BYTES if bfloat16 else 0
    mode = FakeTensorMode()
    stage = fake_stage(plan, device, mode, gpu_attention)
    with mode:
        transformer, kept, marks, inputs = stage.layout.transformer, Kept(stage), [], []
        biases: list[int] = []
        transformer.blocks[0].register_forward_pre_hook(lambda _, given: biases.append(_bytes(given[1].bias)))
        for block in transformer.blocks:
            block.register_forward_pre_hook(lambda _, given: inputs.append(_bytes(given[0])))
            block.register_forward_pre_hook(lambda *_: marks.append(kept.bytes))
        transformer.register_forward_hook(lambda *_: marks.append(kept.bytes))
        casting = autocast(device) if bfloat16 else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(kept.keep, _same), casting:
            loss = fake_loss(stage, plan, device)
        assert loss.device.type == device
    parts = [after - before for before, after in pairwise([*marks, kept.bytes])]
    gradients = 2 * sum(biases)  # of the bias: one block's, and the sum of those after it
    gradients += (copy_bytes + FLOAT_BYTES) * max(weight.numel() for weight in stage.parameters())
    weights, training = _fixed(stage, plan)
    if not plan.checkpointing:
        return StepMemory(weights, training, kept.bytes + max(parts) + gradients)
    *blocks, logits = parts
    copies, busiest = copy_bytes * weights // FLOAT_BYTES, max(*blocks, logits) * 2 + gradients
    return StepMemory(weights, training, kept.bytes - sum(blocks) + sum(inputs) + copies + busiest)


def cpu_step(plan: StepPlan, bfloat16: bool) -> StepMemory:
    """The memory of a step on a CPU: the peak of a fake one, and what the optimizer keeps beside it."""
    mode = FakeTensorMode()
    stage = fake_stage(plan, "cpu", mode)
    with mode:
        stage.layout.transformer.gradient_checkpointing = plan.checkpointing
        with LiveBytes() as live:
            for _ in range(2 if plan.accumulates else 1):
                with autocast("cpu") if bfloat16 else nullcontext():
                    loss = fake_loss(stage, plan, "cpu")
                loss.backward()
                del loss
        weights, training = _fixed(stage, plan)
    return StepMemory(weights, training, max(live.peak - _gradients(stage, plan), 0))


def fake_stage(
    plan: StepPlan, device: str, mode: FakeTensorMode, attention: Callable[[Stage], None] | None = None
) -> Stage:
    """The stage of a plan in training mode, without numbers; `attention` replaces how it attends."""
    with torch.device("meta"):
        stage = build_stage(plan.name, plan.config)
        if plan.lora is not None:
            add_adapter(stage, plan.lora)
    if attention is not None:
        attention(stage)
    with mode:
        for module in stage.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    without_numbers = torch.empty(weight.shape, dtype=weight.dtype, device=device)
                    module._parameters[name] = nn.Parameter(without_numbers, weight.requires_grad)
    return stage.train()


def gpu_attention(stage: Stage) -> None:
    """Has a stage attend as a GPU's kernel does, as far as memory goes."""
    transformer = stage.layout.transformer
    whole = transformer._attend

    def attend(key_mask: Tensor, times: PositionTimes) -> FakeAttention:
        return FakeAttention(whole(key_mask, times).bias)  # type: ignore[attr-defined]

    transformer._attend = attend  # type: ignore[method-assign]


def fake_loss(stage: Stage, plan: StepPlan, device: str) -> Tensor:
    """The loss of a batch of windows as long as the config has them."""
    seconds = plan.config.window_seconds(plan.name)
    ids = [
        torch.zeros(plan.batch, kind.frames(seconds), kind.quantizers, dtype=torch.long, device=device)
        for kind in stage.sequences
    ]
    return stage(ids, None, torch.zeros(plan.batch, dtype=torch.int32, device=device)).loss


@contextmanager
def autocast(device: str) -> Iterator[None]:
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


def _fixed(stage: Stage, plan: StepPlan) -> tuple[int, int]:
    """Bytes of all weights, and of gradients, optimizer, average and exchange of those that are trained."""
    weights = sum(weight.numel() for weight in stage.parameters())
    trained = sum(weight.numel() for weight in stage.parameters() if weight.requires_grad)
    each = FLOAT_BYTES + _OPTIMIZER_BYTES + FLOAT_BYTES * plan.averaged + FLOAT_BYTES * (plan.processes > 1)
    return weights * FLOAT_BYTES, trained * each


def _gradients(stage: Stage, plan: StepPlan) -> int:
    """Bytes of the gradients that are there at the peak."""
    trained = sum(weight.numel() for weight in stage.parameters() if weight.requires_grad)
    return trained * FLOAT_BYTES if plan.accumulates else 0


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
