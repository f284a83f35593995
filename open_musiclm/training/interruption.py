"""SIGTERM and SIGINT end a run after the step it is in, with a checkpoint."""

import signal
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """While entered, the first SIGTERM or SIGINT is only remembered; a second SIGINT stops at once."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._asked = False

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any process was asked to end: all processes call this, and all get the same answer."""
        if self.accelerator.num_processes == 1:
            return self._asked
        flag = torch.tensor(float(self._asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
