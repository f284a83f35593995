"""The endless training stream: the example indices of each process, and the item of each example."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ExampleSampler(Sampler[int]):
    """The endless example indices of one process; those of all processes begin at index `start`.

    Global batch k has the indices [start + k*B*P, start + (k+1)*B*P) for P processes of batch size B; process r takes
    the r-th B of them.
    """

    def __init__(self, start: int, batch_size: int, process_index: int, num_processes: int) -> None:
        self.first = start + process_index * batch_size
        self.batch_size = batch_size
        self.global_batch_size = batch_size * num_processes

    def __iter__(self) -> Iterator[int]:
        first = self.first
        while True:
            yield from range(first, first + self.batch_size)
            first += self.global_batch_size


class ExampleOrder:
    """The endless order of `count` items: a new permutation for every epoch, the same for the same seed."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation = np.arange(0)

    def item(self, index: int) -> int:
        """The item of example `index`."""
        epoch, place = divmod(index, self.count)
        return int(self._of_epoch(epoch)[place])

    def candidates(self, index: int) -> Iterator[int]:
        """That item, then its replacements in case it fails: the next ones of its epoch, each once."""
        epoch, place = divmod(index, self.count)
        return (int(self._of_epoch(epoch)[later]) for later in rotated(self.count, place))

    def _of_epoch(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._permutation = random_generator(self.seed, epoch, 0).permutation(self.count)
            self._epoch = epoch
        return self._permutation


def rotated(count: int, first: int) -> Iterator[int]:
    """All of range(count), starting at `first` (modulo count) and wrapping around."""
    return ((first + offset) % count for offset in range(count))


def random_generator(seed: int, *place: int) -> np.random.Generator:
    """The random generator of one place under a seed (any whole number)."""
    return np.random.default_rng((seed % (1 << 64), *place))
