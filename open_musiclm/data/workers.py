"""Data workers: what a worker process does about signals."""

import signal


def leave_signals_to_parent(worker: int) -> None:
    """A worker's start. Ctrl-C and a scheduler's SIGTERM often reach the whole group; the parent acts on them, and
    needs its workers until it is done. It ends them by its queues, and they end by themselves when it dies."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
