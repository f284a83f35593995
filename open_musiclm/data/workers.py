"""Data workers: what a worker process does about signals."""

import signal


def leave_interrupts_to_parent(worker: int) -> None:
    """A worker's start: Ctrl-C, which the whole process group gets, is the parent's to act on.

    SIGTERM still ends a worker; it is how a parent that stops with an error gets rid of its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
