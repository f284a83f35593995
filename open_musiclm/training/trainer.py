"""What a trainer is to the loop: it learns from batches, validates, and knows its own weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Drawn(Generic[Batch]):
    """A batch of the training stream: its example number i is draw `draws[i]` of the whole run.

    In validation the draws are positions in the validation set.
    """

    batch: Batch
    draws: Sequence[int]


@runtime_checkable
class Resumable(Protocol):
    """What a checkpoint keeps beside the weights: an optimizer, a discriminator."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and containers of them."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Takes such a state back."""


@dataclass(frozen=True)
class Learned:
    """One step: its loss, the amount of data in the trainer's unit in this process, and what else is worth a curve.

    `skipped` says that the loss or the gradient was not finite and that nothing was changed.
    """

    loss: float
    amount: float
    metrics: Mapping[str, float]
    skipped: bool = False


class Trainer(ABC, Generic[Batch]):
    """One kind of model in training. `Loop` gives it batches on the device and does everything around it.

    `name` is what is trained, `unit` what the speed is counted in, and every step takes `batches_per_step`
    batches of every process. All random numbers come from an example's draw, or from torch's, numpy's and Python's
    global generators, which checkpoints keep.
    """

    name: str
    unit: str = "tokens"
    batches_per_step: int = 1

    @abstractmethod
    def learn(self, batches: Iterator[Drawn[Batch]], step: int) -> Learned:
        """Takes all `batches_per_step` batches and makes step number `step` (from 0) of them."""

    @abstractmethod
    def validate(self, batches: Iterable[Drawn[Batch]]) -> Mapping[str, float]:
        """Measures on this process's part of the validation set; the numbers are those of all processes together.

        "loss" decides which checkpoint is the best.
        """

    def write_samples(self, batch: Batch, folder: Path) -> list[Path]:
        """Writes what the model makes of a validation batch; returns the waves, which the tracker shows too."""
        return []

    def accompany_samples(self) -> None:
        """What the other processes do while the main one is in `write_samples`."""

    @abstractmethod
    def write_weights(self, folder: Path) -> None:
        """Writes the weights into a checkpoint folder, for training and for use: every process calls this, the main
        one writes. Raises UserError."""

    @abstractmethod
    def read_weights(self, folder: Path) -> None:
        """Takes the weights of a checkpoint folder. Raises UserError."""

    def resumable(self) -> Mapping[str, Resumable]:
        """What else a checkpoint must keep, by file name."""
        return {}
