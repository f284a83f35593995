"""Data workers: what a worker process does about signals, and where its death is told."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

# What the batches of a loader raise where a worker died: PyTorch's own error, or, where it was just handing a batch
# over, whatever the broken connection gives.
DEATHS = (RuntimeError, EOFError, ConnectionError, FileNotFoundError)


def is_death(error: Exception) -> bool:
    """Whether one of `DEATHS` tells of a worker that died, and not of something else that went wrong."""
    return not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)


def leave_signals_to_parent(worker: int) -> None:
    """A worker's start. Ctrl-C and a scheduler's SIGTERM often reach the whole group; the parent acts on them, and
    needs its workers until it is done. It ends them by its queues, and they end by themselves when it dies."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def opened(loader: DataLoader) -> Iterator[Any]:
    """The loader's batches. A worker that dies is a RuntimeError where its batch is waited for, and nowhere else.

    PyTorch would raise it wherever the parent happens to be, in the middle of a step or of a file being written.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return batches
