"""Writing sound files."""

import io
from collections.abc import Iterable
from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.files import atomic_write

_MP3_COMPRESSION = 0.8  # 3 kB a second of mono at 16 kHz


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
    with atomic_write(path) as temporary:
        write_blocks(temporary, [wave], sample_hz, path.suffix[1:].upper())


def mp3_of(wave: Float[Tensor, "samples"], sample_hz: int) -> bytes:
    """The wave as a small mp3, for a web page; `sample_hz` is one of mp3's rates, such as 16000."""
    target = io.BytesIO()
    samples = wave.detach().to("cpu", torch.float32).clamp(-1, 1).numpy()
    soundfile.write(target, samples, sample_hz, format="MP3", compression_level=_MP3_COMPRESSION)
    return target.getvalue()


def write_blocks(path: Path, blocks: Iterable[Float[Tensor, "_"]], sample_hz: int, kind: str) -> None:
    """Writes the stretches of a wave one after the other, as 16-bit sound of `kind` (WAV, FLAC).

    Not atomic. Raises OSError.
    """
    with _Target(path, "w+") as target:
        failure: Exception | None = None
        try:
            with soundfile.SoundFile(target, "w", sample_hz, 1, subtype="PCM_16", format=kind) as file:
                for block in blocks:
                    file.write(block.detach().to("cpu", torch.float32).clamp(-1, 1).numpy())
                    if target.error is not None:
                        break
        except (soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts that all was written
            failure = error
        if target.error is not None:
            raise target.error
        if failure is not None:
            raise OSError(str(failure)) from failure
