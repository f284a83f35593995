"""Batches for the loop: an endless training stream with a position, and a fixed validation set."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from open_musiclm.config import TrainerConfig
from open_musiclm.data.example_order import ExampleSampler, random_generator
from open_musiclm.data.failures import SoundFailure
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.data.workers import DEATHS, batches_of, is_death, leave_signals_to_parent
from open_musiclm.errors import UserError
from open_musiclm.training.failure_list import FailureList
from open_musiclm.training.trainer import IndexedBatch

MAX_WORKER_DEATHS = 3
_VALIDATION = 2  # in place of an epoch, for its random choice


@dataclass(frozen=True)
class TrainingData:
    """Datasets and how to make batches of them.

    `training[i]` is an example for every i >= 0, `validation[i]` for i < `validation_examples`. `collate` makes a batch
    (of anything that holds tensors) out of a list of examples. `unusable` are sound files that were left out.
    """

    training: Dataset
    validation: Dataset | None
    validation_examples: int
    collate: Callable[[list[Any]], Any]
    batch_size: int
    num_workers: int
    unusable: Sequence[SoundFailure] = ()


class TrainingStream:
    """This process's training batches from example `position` of the stream of all processes on.

    `waited_seconds` is the time spent waiting for data. A worker that dies is replaced; the batches stay the same.
    """

    def __init__(self, data: TrainingData, accelerator: Accelerator, failures: FailureList, position: int) -> None:
        self.data = data
        self.accelerator = accelerator
        self.failures = failures
        self.position = position
        self.waited_seconds = 0.0
        place = (accelerator.process_index, accelerator.num_processes)
        self._batches = _Batches(partial(_training_batches, data, place, position), data)

    def take(self, count: int) -> Iterator[IndexedBatch[Any]]:
        """The next `count` batches, on the device."""
        for _ in range(count):
            begun = time.perf_counter()
            batch = next(self._batches)
            self.waited_seconds += time.perf_counter() - begun
            first = self.position + self.data.batch_size * self.accelerator.process_index
            self.position += self.data.batch_size * self.accelerator.num_processes
            if isinstance(batch, SoundBatch):
                self.failures.add(batch.failures)
            batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
            yield IndexedBatch(batch, range(first, first + self.data.batch_size))

    def close(self) -> None:
        """Ends the workers; no more batches can be taken."""
        self._batches.close()


class ValidationSet:
    """This process's part of the validation set: each example once, of the whole set or of a fixed part of it."""

    def __init__(
        self, data: TrainingData, accelerator: Accelerator, failures: FailureList, config: TrainerConfig
    ) -> None:
        self.data = data
        self.accelerator = accelerator
        self.failures = failures
        chosen = validation_positions(data.validation_examples, config.max_validation_examples, config.seed)
        self._own = chosen[accelerator.process_index :: accelerator.num_processes]

    def __iter__(self) -> Iterator[IndexedBatch[Any]]:
        batches = _Batches(self._after, self.data)
        first = 0
        try:
            for batch in batches:
                if isinstance(batch, SoundBatch):
                    self.failures.add(batch.failures)
                positions = self._own[first : first + self.data.batch_size]
                first += self.data.batch_size
                yield IndexedBatch(send_to_device(batch, self.accelerator.device), positions)
        finally:
            batches.close()

    def _after(self, taken: int) -> Iterator[Any]:
        assert self.data.validation is not None
        return batches_of(_loader(self.data, self.data.validation, _Listed(self._own[taken * self.data.batch_size :])))


def validation_positions(examples: int, most: int | None, seed: int) -> list[int]:
    """The indices of the validation examples to use: all, or `most` of them at random, ascending."""
    if most is None or most >= examples:
        return list(range(examples))
    return sorted(random_generator(seed, examples, _VALIDATION).choice(examples, most, replace=False).tolist())


def _training_batches(data: TrainingData, place: tuple[int, int], first: int, taken: int) -> Iterator[Any]:
    """The endless batches of process `place[0]` of `place[1]`, after `taken` of those from example `first` on."""
    index, processes = place
    position = first + taken * data.batch_size * processes
    return batches_of(_loader(data, data.training, ExampleSampler(position, data.batch_size, index, processes)))


class _Batches:
    """The batches of a loader; where a worker dies, the loader is opened again `after` the batches taken so far."""

    def __init__(self, after: Callable[[int], Iterator[Any]], data: TrainingData) -> None:
        self.after, self.data = after, data
        self.taken = 0
        self._deaths = 0
        self._batches = self.after(self.taken)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                batch = next(self._batches)
            except UserError as error:
                raise _from_worker(error) from error
            except DEATHS as error:
                self._replace_workers(error)
            else:
                self._deaths = 0
                self.taken += 1
                return batch

    def close(self) -> None:
        """Ends the workers. They ignore SIGTERM, so the end of the process would wait for them forever."""
        if isinstance(self._batches, _MultiProcessingDataLoaderIter):
            self._batches._shutdown_workers()
            for worker in self._batches._workers:  # one that waits for what a dead one held
                worker.kill()

    def _replace_workers(self, error: Exception) -> None:
        """Raises the error where it is none of a worker's death, and UserError if workers die again and again."""
        if self.data.num_workers == 0 or not is_death(error):
            raise error
        self._deaths += 1
        self.close()
        if self._deaths >= MAX_WORKER_DEATHS:
            raise UserError(
                f"data workers died {self._deaths} times in a row, after {self.taken} batches of this process (often "
                "for lack of memory); set num_workers lower and resume with --continue_from_dir"
            ) from error
        self._batches = self.after(self.taken)


class _Listed(Sampler[int]):
    """Positions in the order given."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = positions

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


def _loader(data: TrainingData, dataset: Dataset, sampler: Sampler[int]) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=data.batch_size,
        sampler=sampler,
        num_workers=data.num_workers,
        collate_fn=data.collate,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),  # a loader takes a random number, which must not be one of the training's
    )


def _from_worker(error: UserError) -> UserError:
    """The error without the worker's traceback, which the loader puts before its message."""
    return UserError(str(error).strip().splitlines()[-1].removeprefix("open_musiclm.errors.UserError: "))
