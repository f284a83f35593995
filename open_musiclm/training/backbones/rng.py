"""Random numbers of a backbone's training: each belongs to an example or to a step, not to a process.

So the same batch gives the same step on any number of processes, and a resumed run needs no rng states.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from open_musiclm.data.example_order import random_generator
from open_musiclm.models.example_rng import Seeds, derive_seeds, keep_mask

_EXAMPLE, _STEP = 2, 3


def example_rngs(seed: int, indices: Sequence[int]) -> list[np.random.Generator]:
    """One generator for each example of a batch."""
    return [random_generator(seed, index, _EXAMPLE) for index in indices]


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of a step, the same in every process."""
    return random_generator(seed, step, _STEP)


def example_seeds(rngs: Sequence[np.random.Generator], device: torch.device) -> Seeds:
    """One seed for each example's dropout."""
    return torch.tensor([rng.integers(1 << 31) for rng in rngs], dtype=torch.int32, device=device)


class SeededDropout(nn.Module):
    """Dropout that depends on the examples' seeds, set by `seed_dropout`, for a model that cannot pass them on."""

    def __init__(self, probability: float, number: int) -> None:
        super().__init__()
        self.probability, self.number = probability, number
        self.seeds: Seeds | None = None

    def forward(self, x: Float[Tensor, "rows *shape"]) -> Float[Tensor, "rows *shape"]:
        """Dropout of x; `rows` are those of the first example, then of the next, equally many of each."""
        if not self.training or self.probability == 0:
            return x
        assert self.seeds is not None
        examples = x.reshape(len(self.seeds), -1, x.shape[-1])
        share = 1 - self.probability
        dropped = ~keep_mask(derive_seeds(self.seeds, self.number), examples.shape[1], examples.shape[2], share)
        return (examples / share).masked_fill(dropped, 0).view(x.shape)


def follow_examples(model: nn.Module) -> None:
    """Replaces a transformers model's dropout by `SeededDropout`; attention weights have none afterwards."""
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
