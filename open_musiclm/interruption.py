"""SIGTERM and SIGINT as requests to stop, so that the step at hand can be finished and saved."""

import signal
import time
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A terminal and a launcher each pass one Ctrl-C on; only a later one is a second request.
_SAME_PRESS_SECONDS = 1.0


class Interruption:
    """While entered, SIGTERM and SIGINT set `asked`; a second SIGINT, later, raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and time.monotonic() - self._asked_at > _SAME_PRESS_SECONDS:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
