"""Data workers: what a worker process does about signals, and where its death is told."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


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
