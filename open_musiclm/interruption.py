"""Signals as requests to stop, so that the current step can be finished and saved."""

import os
import signal
import time
from types import FrameType, TracebackType
from typing import NoReturn

_HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed
_SIGNALS = tuple(number for number in (signal.SIGTERM, signal.SIGINT, _HANGUP) if number is not None)
# A terminal and a launcher each pass one Ctrl-C on; only a later one is a second request.
_SAME_PRESS_SECONDS = 1.0


class Interrupted(Exception):
    """A run was stopped by a signal, after it had saved what it had."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_status(self) -> int:
        """The exit status of a process that this signal ended: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


class Interruption:
    """While entered, SIGTERM, SIGINT and SIGHUP set `requested`; a second SIGINT, later, raises KeyboardInterrupt.

    `number` is that of the first signal, 0 before. A SIGHUP that nohup has switched off stays so.
    """

    def __init__(self) -> None:
        self.number = 0
        self._requested_at = 0.0

    @property
    def requested(self) -> bool:
        """Whether a signal asked for an end."""
        return self.number > 0

    def end(self) -> NoReturn:
        """Raises Interrupted, after everything is saved."""
        raise Interrupted(self.number)

    def __enter__(self) -> "Interruption":
        handled = [number for number in _SIGNALS if number != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN]
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        self._before = {number: signal.signal(number, self._remember) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT and time.monotonic() - self._requested_at > _SAME_PRESS_SECONDS:
            raise KeyboardInterrupt
        if not self.requested:
            self.number, self._requested_at = number, time.monotonic()
        if number == _HANGUP:
            self._leave_terminals()

    def _leave_terminals(self) -> None:
        """Redirects output of a closed terminal: writing to it would fail before the run is saved."""
        for descriptor in self._terminals:
            if not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
