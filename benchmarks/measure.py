"""Time and peak memory of a function, in its own process."""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from open_musiclm.errors import UserError


@dataclass(frozen=True)
class Measured:
    """The median seconds of one repetition, and the peak memory of the process or, on a GPU, of the device.

    `megabytes_before` is what was in use before the first repetition.
    """

    seconds: float
    megabytes: float
    megabytes_before: float


def measure_alone(work: Callable[..., Callable[[], object]], arguments: tuple, repetitions: int) -> Measured:
    """`work(*arguments)` prepares and returns what is timed: once to warm up, then `repetitions` times.

    Runs in a fresh process, so that the peak memory is this work's own; it is forked from one that has imported what
    all of them need. Raises UserError where the system is not Linux.
    """
    if sys.platform != "linux":
        raise UserError("memory is read from /proc, which only Linux has: run this benchmark there")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "open_musiclm.training.stage_trainer"])
    with context.Pool(1) as pool:
        return pool.apply(_measure, (work, arguments, repetitions))


def _measure(work: Callable[..., Callable[[], object]], arguments: tuple, repetitions: int) -> Measured:
    timed = work(*arguments)
    before = _megabytes_now()
    timed()
    seconds = []
    for _ in range(repetitions):
        _wait_for_device()
        begun = time.perf_counter()
        timed()
        _wait_for_device()
        seconds.append(time.perf_counter() - begun)
    return Measured(statistics.median(seconds), _peak_megabytes(), before)


def _wait_for_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _peak_megabytes() -> float:
    if torch.cuda.is_initialized() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _megabytes_now() -> float:
    if torch.cuda.is_initialized() and torch.cuda.max_memory_allocated():
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
