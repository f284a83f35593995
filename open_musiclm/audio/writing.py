"""Writing sound files."""

import io
from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write


class _Target(io.FileIO):
    """A file that remembers why it cannot be written: libsndfile says no more than "System error."."""

    error: OSError | None = None

    def write(self, content) -> int:  # type: ignore[no-untyped-def]
        """The bytes written, 0 where that fails."""
        written = 0
        try:
            while written < len(content):
                written += super().write(content[written:])
        except OSError as error:
            self.error = error
        return written


def write_wave(path: Path, wave: Float[Tensor, "samples"], sample_hz: int) -> None:
    """Writes 16-bit sound atomically, as wav or flac by the suffix. Raises UserError."""
    samples = wave.detach().to("cpu", torch.float32).clamp(-1, 1).numpy()
    with atomic_write(path) as temporary, _Target(temporary, "w+") as target:
        failure: Exception | None = None
        try:
            soundfile.write(target, samples, sample_hz, subtype="PCM_16", format=path.suffix[1:].upper())
        except (soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts that all was written
            failure = error
        if target.error is not None:
            raise target.error
        if failure is not None:
            raise UserError(f"{path}: cannot write: {failure}") from failure
