"""One module and its AdamW: a schedule, gradient clipping, steps that are not finite left out."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from open_musiclm.training.schedule import Schedule
from open_musiclm.training.sharding import laid_out_like, whole, whole_number


@dataclass(frozen=True)
class OptimizerSettings:
    """How to learn."""

    schedule: Schedule
    weight_decay: float
    max_gradient_norm: float


@dataclass(frozen=True)
class Update:
    """What one optimizer step did; `skipped` if loss or gradient was not finite and nothing was changed."""

    loss: float
    gradient_norm: float
    learning_rate: float
    skipped: bool


class Optimization:
    """`module` is the trained module wrapped for this run's devices: call it, and `backward` on its loss."""

    def __init__(self, accelerator: Accelerator, module: nn.Module, settings: OptimizerSettings) -> None:
        self.accelerator = accelerator
        self.settings = settings
        groups = parameter_groups(module, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=settings.schedule.rate, fused=True)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self._losses: list[torch.Tensor] = []

    @property
    def plain_module(self) -> nn.Module:
        """The module as it was given."""
        return self.accelerator.unwrap_model(self.module)

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of one batch; call it inside `accelerator.accumulate(module)`."""
        self._losses.append(loss.detach())
        self.accelerator.backward(loss)

    def update(self, step: int) -> Update:
        """One step with the mean gradient of the batches since the last one; all processes decide alike."""
        loss = self.accelerator.reduce(torch.stack(self._losses).mean(), reduction="mean").item()
        self._losses.clear()
        rate = self.settings.schedule.at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.max_gradient_norm)
        gradient_norm = whole_number(norm)
        skipped = not (math.isfinite(loss) and math.isfinite(gradient_norm))
        if not skipped:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return Update(loss, gradient_norm, rate, skipped)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, whole (every process calls this)."""
        return whole(self.optimizer.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the optimizer's state back, from any number of processes."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        states = {
            number: {name: laid_out_like(value, weights[number]) for name, value in values.items()}
            for number, values in state_dict["state"].items()
        }
        self.optimizer.load_state_dict({**state_dict, "state": states})


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, with weight decay on matrices and none on vectors."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
