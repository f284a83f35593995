"""What is random in the training of a backbone: it belongs to the example or to the step, not to a process.

So the same batch gives the same step on any number of processes, and a run that goes on needs no random states.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from open_musiclm.data.example_order import random_generator
from open_musiclm.models.example_rng import Seeds, derived, kept

_EXAMPLE, _STEP = 2, 3


def example_chances(seed: int, draws: Sequence[int]) -> list[np.random.Generator]:
    """The random numbers of each example of a batch."""
    return [random_generator(seed, draw, _EXAMPLE) for draw in draws]


def step_chance(seed: int, step: int) -> np.random.Generator:
    """The random numbers of a step, the same in every process."""
    return random_generator(seed, step, _STEP)


def example_seeds(chances: Sequence[np.random.Generator], device: torch.device) -> Seeds:
    """One whole number of each example, for its dropout."""
    return torch.tensor([chance.integers(1 << 31) for chance in chances], dtype=torch.int32, device=device)


class SeededDropout(nn.Module):
    """Dropout in a model that knows nothing of examples: it follows the seeds that `seed_dropout` has set."""

    def __init__(self, probability: float, number: int) -> None:
        super().__init__()
        self.probability, self.number = probability, number
        self.seeds: Seeds | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x [batch * parts, ..., channels], the parts of an example one after the other."""
        if not self.training or self.probability == 0:
            return x
        assert self.seeds is not None
        rows = x.reshape(len(self.seeds), -1, x.shape[-1])
        share = 1 - self.probability
        dropped = ~kept(derived(self.seeds, self.number), rows.shape[1], rows.shape[2], share)
        return (rows / share).masked_fill(dropped, 0).view(x.shape)


def follow_examples(model: nn.Module) -> None:
    """Replaces a transformers model's dropout by `SeededDropout`, save that of attention weights: that is left out."""
    number = 0
    for module in list(model.modules()):
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010 (a module that has it as a number)
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, SeededDropout(child.p, number))
                number += 1


def seed_dropout(model: nn.Module, seeds: Seeds | None) -> None:
    """Sets the seeds of the examples that the model gets next; none are needed for evaluation."""
    for module in model.modules():
        if isinstance(module, SeededDropout):
            module.seeds = seeds
