"""Data workers: their signals, and an error if one dies."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

# The errors of a loader whose worker died: PyTorch's own, or those of a connection that broke in the middle of a batch.
DEATHS = (RuntimeError, EOFError, ConnectionError, FileNotFoundError)


def is_death(error: Exception) -> bool:
    """Whether one of `DEATHS` means that a worker died, not that something else failed."""
    # An exception that a worker raises comes with its traceback, "Caught ... in DataLoader worker process 0.".
    is_raised = str(error).startswith("Caught ")
    return not is_raised and (not isinstance(error, RuntimeError) or "DataLoader worker" in str(error))


def leave_signals_to_parent(worker: int) -> None:
    """The `worker_init_fn` of a loader: the worker ignores SIGINT, SIGTERM and SIGHUP.

    Ctrl-C, a scheduler's SIGTERM and the end of a terminal often reach the whole process group. The parent handles
    them, and needs its workers until it is done. It ends them through its queues; they end by themselves when it dies.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def batches_of(loader: DataLoader) -> Iterator[Any]:
    """The loader's batches. Where a worker dies, waiting for its batch raises RuntimeError.

    PyTorch alone raises it from a signal handler, anywhere in the parent: in the middle of a step or of writing a file.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    is_pytorchs = str(getattr(before, "__module__", "")).startswith("torch.")  # of a loader that was opened otherwise
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if is_pytorchs else before)
    return batches
