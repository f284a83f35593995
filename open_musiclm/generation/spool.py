"""Waves of hours, written to a file while they are generated."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError

_BYTES = 4


class SpooledWave:
    """A float32 wave in a temporary file: its length, and its samples in blocks.

    The file is removed at the end of the context.
    """

    def __init__(self, path: Path) -> None:
        """Writes to `path`. Raises UserError."""
        self.path, self._samples = path, 0

    def __enter__(self) -> "SpooledWave":
        self._open = ExitStack()
        try:
            self._file = self._open.enter_context(self.path.open("w+b", buffering=0))
        except OSError as error:
            raise self._refused(error) from error
        self._open.callback(self.path.unlink, missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        return self._samples

    def append(self, wave: Float[Tensor, "samples"]) -> None:
        """Adds samples at the end. Raises UserError if the disk is full."""
        left = memoryview(wave.detach().to("cpu", torch.float32).numpy().tobytes())
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._refused(error) from error
        self._samples += wave.shape[0]

    def split(self, samples: int) -> Iterator[Float[Tensor, "_"]]:
        """The wave in blocks of `samples`, of which the last may be shorter, as `Tensor.split` gives them."""
        for first in range(0, self._samples, samples):
            yield self.segment(first, min(first + samples, self._samples))

    def segment(self, start: int, end: int) -> Float[Tensor, "_"]:
        """Samples [start, end)."""
        block = np.fromfile(self.path, np.float32, end - start, offset=start * _BYTES)
        return torch.from_numpy(block)

    def _refused(self, error: OSError) -> UserError:
        return UserError(f"{self.path.parent}: cannot write to this folder: {error.strerror or error}")
