"""Weights that FSDP2 shards over the processes: gathered for a checkpoint, and laid out again."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map


def is_sharded(module: nn.Module) -> bool:
    """Whether each process has only a part of the weights, so that all have to run the module equally often."""
    return any(isinstance(weight, DTensor) for weight in module.parameters())


def whole(tree: Any) -> Any:
    """The same containers with every sharded tensor gathered on the CPU; every process calls this."""
    return tree_map(lambda leaf: leaf.full_tensor().cpu() if isinstance(leaf, DTensor) else leaf, tree)


def laid_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor where `like`, of the same shape, is sharded; else the tensor itself."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def whole_number(value: Tensor) -> float:
    """A scalar that all processes may hold together, such as the norm of sharded gradients."""
    assert isinstance(value, torch.Tensor)
    return (value.full_tensor() if isinstance(value, DTensor) else value).item()
