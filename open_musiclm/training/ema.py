"""An exponential moving average of the weights in training: less noisy than the weights of any one step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from open_musiclm.errors import UserError
from open_musiclm.training.distributed import shard_again, sharded_like, whole_weights

AVERAGE_NAME = "training_weights"  # of the checkpoint's file with the weights in training
_FIRST_UPDATES = 10


class WeightAverage:
    """The average of a module's trainable weights, a `decay` of the old one with every update.

    At first the decay is lower, (1 + n) / (10 + n) after n updates, so that a short run is not averaged with its
    beginning. A checkpoint's weights are the average; its state here is the weights in training.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.updates = 0
        self._averages = {name: weight.detach().clone() for name, weight in self._trainable()}

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (_FIRST_UPDATES + self.updates))
        self.updates += 1
        for name, weight in self._trainable():
            self._averages[name].mul_(decay).add_(weight, alpha=1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averages in this context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """The weights in training, whole, and the number of updates. Every process calls this."""
        whole = whole_weights(self.module)
        return {"updates": self.updates, "weights": {name: whole[name] for name in self._averages if name in whole}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state, after the module has loaded the averages of the same checkpoint.

        Raises ValueError if it is none of this module's.
        """
        weights: dict[str, Tensor] = state_dict["weights"]
        if weights.keys() != self._averages.keys():
            raise ValueError("the weights of another module")
        self.updates = int(state_dict["updates"])
        with torch.no_grad():
            for name, weight in self._trainable():
                if weights[name].shape != weight.shape:
                    raise ValueError(f"{name} has another shape")
                self._averages[name].copy_(weight)
                weight.copy_(sharded_like(weights[name].clone(), weight))

    @torch.no_grad()
    def _exchange(self) -> None:
        shard_again(self.module)
        for name, weight in self._trainable():
            kept = weight.detach().clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(kept)

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.module.named_parameters() if weight.requires_grad]


def check_average(checkpoint: Path, average: WeightAverage | None) -> None:
    """Raises UserError if a checkpoint has an average and the resumed run has none, or the reverse."""
    has_average = (checkpoint / f"{AVERAGE_NAME}.pt").exists()
    if has_average and average is None:
        raise UserError(f"{checkpoint}: made with ema_decay; set it again to resume this run")
    if average is not None and not has_average:
        raise UserError(
            f"{checkpoint}: made without ema_decay; leave it out to resume, or start a new run with --fine_tune_from"
        )
