"""Communication between the processes of a run; with one process every function returns its own values.

A run is distributed by DDP, which keeps whole weights in every process, or by FSDP2, which shards them.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int, Shaped
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

# Whole tensors in the CPU memory of process 0, one after the other; nothing in the others.
_ON_MAIN = StateDictOptions(full_state_dict=True, cpu_offload=True)


def num_processes() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def all_reduce(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum over all processes, without a gradient."""
    total = x.detach().clone()
    if distributed.is_initialized():
        distributed.all_reduce(total)
    return total


def all_reduce_mean(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The mean over all processes, without a gradient."""
    return all_reduce(x) / num_processes()


def mean_metrics(values: Mapping[str, Shaped[Tensor, ""]]) -> dict[str, float]:
    """The mean over all processes of every scalar."""
    means = all_reduce_mean(torch.stack([value.detach().float() for value in values.values()]))
    return dict(zip(values, means.tolist(), strict=True))


def all_gather(x: Shaped[Tensor, "batch *shape"]) -> Shaped[Tensor, "all *shape"]:
    """The tensors of all processes, of equal length, in the order of the processes.

    Each process receives the gradient of its own part from the losses of all: the mean of all gradients is the
    gradient of the mean loss.
    """
    return _AllGather.apply(x) if distributed.is_initialized() else x


def gather_positions(
    x: Shaped[Tensor, "own *shape"], positions: Int[Tensor, "count"]
) -> Shaped[Tensor, "count *shape"]:
    """`all_gather(x)[positions]`, without gathering it all; `positions` are whole numbers on the CPU."""
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    own = positions - rank * len(x)
    here = (own >= 0) & (own < len(x))
    found = x.new_zeros(len(positions), *x.shape[1:])
    found[here.to(x.device)] = x.detach()[own[here].to(x.device)]
    return all_reduce(found)


class ValidationMeans:
    """Means of named values over the examples of all processes: `add` every batch, then `compute` in all processes."""

    def __init__(self, accelerator: Accelerator, names: Sequence[str]) -> None:
        self.accelerator, self.names = accelerator, names
        self._sums: list[Float[Tensor, "values"]] = []

    def add(self, values: Sequence[Shaped[Tensor, ""]], count: int) -> None:
        """Adds the means over `count` examples (or frames, if these are counted)."""
        stacked = torch.stack([value.detach().float() for value in values])
        self._sums.append(torch.cat((stacked * count, stacked.new_tensor([count]))))

    def compute(self) -> dict[str, float]:
        """Every name's mean; NaN if no process had an example."""
        parts = [torch.zeros(len(self.names) + 1), *(part.cpu() for part in self._sums)]
        sums = torch.stack(parts).double().sum(dim=0).float()  # in float32 the sums of many batches would drift
        *totals, count = all_reduce(sums.to(self.accelerator.device)).tolist()
        return {name: total / count if count else float("nan") for name, total in zip(self.names, totals, strict=True)}


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 shards the weights, so that all processes have to run the module equally often."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def shard_again(module: nn.Module) -> None:
    """Frees the whole weights that a pass may have left in a sharded module: its parameters are the shards again."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict, whole on the CPU of process 0 and empty in the others, also of a sharded module.

    Every process calls this.
    """
    tensors: dict[str, Any] = get_model_state_dict(module, options=_ON_MAIN)
    return tensors


def whole_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()`; if `module` is sharded, whole on the CPU of process 0 and empty in the others.

    Every process calls this.
    """
    if not (is_sharded(module) and optimizer.state):
        return optimizer.state_dict()
    state: dict[str, Any] = get_optimizer_state_dict(module, optimizer, options=_ON_MAIN)
    if not state:
        return {}
    groups = state["param_groups"]
    numbers = {name: number for number, name in enumerate(chain.from_iterable(group["params"] for group in groups))}
    return {
        "state": {numbers[name]: values for name, values in state["state"].items()},
        "param_groups": [{**group, "params": [numbers[name] for name in group["params"]]} for group in groups],
    }


def sharded_like(tensor: Shaped[Tensor, "..."], like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """This process's shard of a whole tensor, if `like` is sharded and has its shape; else the tensor itself."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def whole_scalar(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """A scalar that the processes may hold in parts, such as the norm of sharded gradients."""
    return value.full_tensor() if isinstance(value, DTensor) else value


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.length = len(x)
        parts = [torch.empty_like(x) for _ in range(num_processes())]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        first = distributed.get_rank() * ctx.length
        return all_reduce(gradient)[first : first + ctx.length]
