"""The interface between the loop and what it trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class IndexedBatch(Generic[Batch]):
    """A batch, and the index of each of its examples: in the endless training stream, or in the validation set."""

    batch: Batch
    indices: Sequence[int]


@runtime_checkable
class Resumable(Protocol):
    """A part of a checkpoint besides the weights: an optimizer, a discriminator."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and containers of them."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores such a state."""


@dataclass(frozen=True)
class StepResult:
    """One step: its loss, the amount of data in the trainer's unit in this process, and further metrics.

    `skipped` says that the loss or the gradient was not finite and that nothing was changed.
    """

    loss: float
    amount: float
    metrics: Mapping[str, float]
    skipped: bool = False


class Trainer(ABC, Generic[Batch]):
    """One kind of model in training. `Loop` gives it batches on the device and does everything around it.

    `name` is what is trained, `unit` what the speed is counted in; a step takes `batches_per_step` batches in every
    process; every `evaluate_every` steps `evaluate` is called. All random numbers come from an example's index, or from
    torch's, numpy's and Python's global generators, which checkpoints keep.
    """

    name: str
    unit: str = "tokens"
    batches_per_step: int = 1
    evaluate_every: int | None = None

    @abstractmethod
    def train_step(self, batches: Iterator[IndexedBatch[Batch]], step: int) -> StepResult:
        """Makes step number `step` (from 0) of the `batches_per_step` batches, all of which it takes."""

    @abstractmethod
    def validate(self, batches: Iterable[IndexedBatch[Batch]]) -> Mapping[str, float]:
        """Metrics over the validation set of all processes, from this process's part of it.

        "loss" decides which checkpoint is the best; it is NaN if no process has an example.
        """

    def evaluate(self, batches: Iterable[IndexedBatch[Batch]]) -> Mapping[str, float]:
        """Metrics of what the model generates from validation examples; it takes as many as it wants. Process 0 only.

        Leaves the global random generators as they are. Raises UserError.
        """
        return {}

    def write_samples(self, batch: Batch, folder: Path) -> list[Path]:
        """Writes what the model makes of a validation batch; returns the waves, for the tracker. Process 0 only."""
        return []

    def run_beside_samples(self) -> None:
        """What the other processes run during `write_samples`: nothing, unless weights are sharded."""

    @abstractmethod
    def write_weights(self, folder: Path) -> None:
        """Writes the weights into a checkpoint folder, as inference reads them. Raises UserError.

        Every process calls this; process 0 writes.
        """

    @abstractmethod
    def read_weights(self, folder: Path) -> None:
        """Reads the weights of a checkpoint folder. Raises UserError."""

    def resumable(self) -> Mapping[str, Resumable]:
        """The other parts of a checkpoint, by file name."""
        return {}
