"""The number of CPU threads for decode steps, chosen by short measurements.

A decode step is a hundred short parallel operations, and in each the threads wait for the slowest. If other processes
use the cores too, one thread is far faster than many; on an idle machine it is slower.
"""

import time
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median

import torch

TRIED_STEPS = 4  # of each number of threads
STEPS_BETWEEN_TRIALS = 256


class AdaptiveThreads:
    """Runs steps with the number of threads that was fastest in the last trial.

    A trial measures all of torch's threads, half of them, and one, and compares medians: a single step that something
    else delays decides nothing. `clock` gives seconds.
    """

    def __init__(self, most: int | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = most or torch.get_num_threads()
        self.candidates = sorted({self.most, (self.most + 1) // 2, 1}, reverse=True)
        self.best = self.most
        self.clock = clock
        self._seconds: dict[int, list[float]] = {threads: [] for threads in self.candidates}
        self._schedule = self._numbers()

    def run(self, step: Callable[[], None]) -> None:
        """Runs one step; restores torch's number of threads afterwards."""
        if len(self.candidates) == 1:
            step()
            return
        before, threads = torch.get_num_threads(), next(self._schedule)
        torch.set_num_threads(threads)
        started = self.clock()
        try:
            step()
        finally:
            self._seconds[threads].append(self.clock() - started)
            torch.set_num_threads(before)

    def _numbers(self) -> Iterator[int]:
        """Yields the number of threads of each step, endlessly."""
        for trial in count():
            for threads in self.candidates:
                if trial == 0:  # the first step of all includes what is set up once
                    yield threads
                self._seconds[threads].clear()
                for _ in range(TRIED_STEPS):
                    yield threads
            self.best = min(self.candidates, key=lambda threads: median(self._seconds[threads]))
            for _ in range(STEPS_BETWEEN_TRIALS):
                yield self.best
