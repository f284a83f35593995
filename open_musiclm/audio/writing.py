"""Writing sound files."""

import errno
from collections.abc import Iterable
from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.files import atomic_write

_PROBE_BYTES = 1 << 16


def write_wave(path: Path, wave: Float[Tensor, "samples"], sample_hz: int) -> None:
    """Writes 16-bit sound atomically, as wav or flac by the suffix. Raises UserError."""
    with atomic_write(path) as temporary:
        write_blocks(temporary, [wave], sample_hz, path.suffix[1:].upper())


def write_blocks(path: Path, blocks: Iterable[Float[Tensor, "_"]], sample_hz: int, kind: str) -> None:
    """Writes the stretches of a wave one after the other, as 16-bit sound of `kind` (WAV, FLAC).

    Not atomic. Raises OSError.
    """
    samples = 0
    try:
        with soundfile.SoundFile(path, "w", sample_hz, 1, subtype="PCM_16", format=kind) as file:
            for block in blocks:
                samples += block.shape[0]
                file.write(block.detach().to("cpu", torch.float32).clamp(-1, 1).numpy())
        whole = soundfile.info(path).frames == samples  # closing a file does not tell of a full disk
    except (soundfile.LibsndfileError, AssertionError):  # AssertionError: fewer samples were written than given
        whole = False
    if not whole:
        _raise_reason(path)
        raise OSError(errno.EIO, "the sound library refused it")


def _raise_reason(path: Path) -> None:
    """Raises the OSError of which libsndfile only says "System error", by writing on; none if that works."""
    with path.open("ab") as file:
        file.write(bytes(_PROBE_BYTES))
