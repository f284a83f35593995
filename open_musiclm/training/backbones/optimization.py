"""AdamW with a rate that warms up, stays and falls along a cosine; steps that are not finite are left out."""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from open_musiclm.config.backbones import BackboneTrainerConfig
from open_musiclm.devices import products_in
from open_musiclm.training.optimization import parameter_groups
from open_musiclm.training.schedule import Schedule


class CosineAdamW:
    """One module's optimizer: `update` makes a step with the gradient that is there; `products` sets the precision."""

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        config: BackboneTrainerConfig,
        betas: tuple[float, float],
    ) -> None:
        self.accelerator, self.config = accelerator, config
        self.schedule = Schedule(config.lr, config.lr_warmup, config.constant_share, config.num_train_steps)
        optimizer = torch.optim.AdamW(parameter_groups(module, config.wd), lr=config.lr, betas=betas, fused=True)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)

    def products(self) -> torch.autocast:
        """Within it, products are computed in the run's precision."""
        return products_in(self.config.precision, self.accelerator.device)

    def update(self, step: int, losses: Iterable[torch.Tensor]) -> float:
        """Changes the parameters unless a loss or the gradient is not finite; returns the gradient's norm."""
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.max_grad_norm)
        finite = torch.stack([torch.as_tensor(value).isfinite() for value in (*losses, norm)]).all()
        everywhere = self.accelerator.reduce(finite.float().to(self.accelerator.device), reduction="mean").item() == 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.at(step)
        if everywhere:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm) if everywhere else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the optimizer's state back."""
        self.optimizer.load_state_dict(state_dict)
