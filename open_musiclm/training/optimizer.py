"""One module and its AdamW: the rate's schedule, gradient clipping, and no update from what is not finite."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from open_musiclm.config.training import GradientTrainerConfig
from open_musiclm.training.distributed import all_reduce_mean, sharded_like, whole_optimizer_state, whole_scalar


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: it rises linearly, stays, and falls to zero along a cosine.

    Counted in optimizer steps. After `constant_share` of `steps` the rate falls; with a share of 1 it stays.
    """

    rate: float
    warm_up_steps: int
    constant_share: float
    steps: int

    def at(self, step: int) -> float:
        """The rate of step `step` (from 0)."""
        risen = min((step + 1) / self.warm_up_steps, 1.0) if self.warm_up_steps else 1.0
        if self.constant_share == 1:
            return self.rate * risen
        begin = self.constant_share * self.steps
        fallen = min(max(step - begin, 0) / (self.steps - begin), 1.0)
        return self.rate * risen * (1 + math.cos(math.pi * fallen)) / 2


@dataclass(frozen=True)
class Update:
    """The result of an optimizer step.

    `skipped` says that a loss or the gradient was not finite in some process, and that nothing was changed.
    """

    gradient_norm: float
    learning_rate: float
    skipped: bool


class Optimizer:
    """Trains a module by gradient.

    Call `module`, which is the given one wrapped for the run's devices, give its loss to `accelerator.backward`, then
    call `update`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        config: GradientTrainerConfig,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.accelerator, self.config = accelerator, config
        self.schedule = Schedule(config.lr, config.lr_warmup, config.constant_share, config.num_train_steps)
        adamw = torch.optim.AdamW(parameter_groups(module, config.wd), lr=config.lr, betas=betas, fused=True)
        self.module, self._adamw = accelerator.prepare(module, adamw)

    @property
    def plain_module(self) -> nn.Module:
        """The module as it was given."""
        return self.accelerator.unwrap_model(self.module)

    def update(self, step: int, losses: Iterable[Tensor]) -> Update:
        """Makes step `step` (from 0) with the gradient that is there and clears it; all processes decide alike.

        `losses` are scalars of this process that must be finite.
        """
        rate = self.schedule.at(step)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        norm = whole_scalar(self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.max_grad_norm))
        finite = torch.stack([value.detach().isfinite() for value in (*losses, norm)]).all()
        skipped = all_reduce_mean(finite.float()).item() < 1
        if not skipped:
            self._adamw.step()
        self._adamw.zero_grad()
        return Update(norm.item(), rate, skipped)

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state, whole; of a sharded module in process 0 only. Every process calls this."""
        return whole_optimizer_state(self.plain_module, self._adamw.optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores AdamW's state, from a run on any number of processes; the settings stay those of the config.

        Raises ValueError if it is none of these weights.
        """
        weights = [weight for group in self._adamw.param_groups for weight in group["params"]]
        groups = self._adamw.state_dict()["param_groups"]
        if [group["params"] for group in state_dict["param_groups"]] != [group["params"] for group in groups]:
            raise ValueError("an optimizer of other weights")
        states = {}
        for number, values in state_dict["state"].items():
            _check_state(values, weights[number])
            states[number] = {name: sharded_like(value.clone(), weights[number]) for name, value in values.items()}
        self._adamw.load_state_dict({"state": states, "param_groups": groups})


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, the module computes without gradients for its weights; gradients still reach its inputs."""
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


def _check_state(values: dict[str, Any], weight: Tensor) -> None:
    """Raises ValueError if these are not AdamW's numbers for a weight."""
    shapes = {"step": (), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
    if values.keys() != shapes.keys():
        raise ValueError(f"not the state of AdamW, but of {', '.join(map(str, values))[:80]}")
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.shape != shapes[name] or not value.is_floating_point():
            raise ValueError(f"{name} does not fit a weight of shape {list(weight.shape)}")
        if name != "exp_avg" and bool((value < 0).any()):
            raise ValueError(f"{name} is below 0")


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, with weight decay on matrices and none on vectors."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
