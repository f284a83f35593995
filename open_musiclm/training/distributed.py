"""What the processes of a run compute together; with one process it is what that one has."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed


def processes() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(x: Tensor) -> Tensor:
    """The sum over all processes, without a gradient."""
    total = x.detach().clone()
    if distributed.is_initialized():
        distributed.all_reduce(total)
    return total


def averaged(x: Tensor) -> Tensor:
    """The mean over all processes, without a gradient."""
    return summed(x) / processes()


def averaged_numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean over all processes of every scalar, for a log."""
    means = averaged(torch.stack([value.detach().float() for value in values.values()]))
    return dict(zip(values, means.tolist(), strict=True))


def gathered(x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "all *shape"]:
    """The rows of all processes, as many of each, in their order.

    Each process receives the gradient of its own rows from the losses of all, so that the mean of all processes'
    gradients, which is what they learn from, is that of the mean of their losses.
    """
    return _Gathered.apply(x) if distributed.is_initialized() else x


def gathered_rows(x: Tensor, places: Tensor) -> Tensor:
    """The rows `places`, whole numbers on the CPU, of what `gathered` gives, without gathering it all."""
    index = distributed.get_rank() if distributed.is_initialized() else 0
    own = places - index * len(x)
    here = (own >= 0) & (own < len(x))
    rows = x.new_zeros(len(places), *x.shape[1:])
    rows[here.to(x.device)] = x.detach()[own[here].to(x.device)]
    return summed(rows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(processes())]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        first = distributed.get_rank() * ctx.rows
        return summed(gradient)[first : first + ctx.rows]
