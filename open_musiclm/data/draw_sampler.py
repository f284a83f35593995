"""Positions in the endless training stream: which ones a process takes, and which example each one means."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class DrawSampler(Sampler[int]):
    """The draws of one process, endless, from draw `start` of all processes together on.

    Global batch k is draws [start + k*B*P, start + (k+1)*B*P) for P processes of batch size B; process r takes the
    r-th B of them.
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


class DrawOrder:
    """The endless stream over `count` examples: a new permutation for every epoch, the same for the same seed."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation = np.arange(0)

    def index(self, draw: int) -> int:
        """The example of a draw."""
        epoch, place = divmod(draw, self.count)
        if epoch != self._epoch:
            self._permutation = random_generator(self.seed, epoch, 0).permutation(self.count)
            self._epoch = epoch
        return int(self._permutation[place])


def random_generator(seed: int, *place: int) -> np.random.Generator:
    """The random numbers of one place under a seed (any whole number)."""
    return np.random.default_rng((seed % (1 << 64), *place))
