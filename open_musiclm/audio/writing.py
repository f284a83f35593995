"""Writing sound files."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio.info import SoundInfo
from open_musiclm.files import atomic_write

_MP3_COMPRESSION = 0.8  # 3 kB a second of mono at 16 kHz
_BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# What a wav holds exactly, by what a file holds.
_KEPT_SUBTYPES = {
    **{name: name for name in (*_BITS, "FLOAT", "DOUBLE")},
    **dict.fromkeys(("PCM_U8", "PCM_S8", "ULAW", "ALAW", "ALAC_16"), "PCM_16"),
    **dict.fromkeys(("ALAC_20", "ALAC_24"), "PCM_24"),
    "ALAC_32": "PCM_32",
}
_LARGEST_SAMPLE_BYTES = 8
_MOST_WAV_BYTES = (1 << 32) - (1 << 12)


class _Target(io.FileIO):
    """A file that keeps the reason of a failed write: libsndfile only says "System error."."""

    error: OSError | None = None

    def write(self, content) -> int:  # type: ignore[no-untyped-def]
        """The bytes written, 0 if that fails."""
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
    """Writes the blocks of a wave one after the other, as 16-bit sound of format `kind` (WAV, FLAC).

    Not atomic. Raises OSError.
    """
    arrays = (block.detach().to("cpu", torch.float32).clamp(-1, 1).numpy() for block in blocks)
    _write(path, arrays, sample_hz, 1, "PCM_16", kind)


def write_exactly(path: Path, blocks: Iterable[Float[np.ndarray, "_ channels"]], info: SoundInfo) -> None:
    """Writes float64 blocks as a wav with the kind of samples that `info` names: samples read from such a file stay the
    same to the last bit. Compressed kinds become 32-bit floats, which hold what was decoded.

    Not atomic. Raises OSError.
    """
    subtype = _KEPT_SUBTYPES.get(info.subtype, "FLOAT")
    size = info.frames * info.channels * _LARGEST_SAMPLE_BYTES
    kind = "WAV" if size < _MOST_WAV_BYTES else "RF64"
    _write(path, (_as_stored(block, subtype) for block in blocks), info.sample_hz, info.channels, subtype, kind)


def _as_stored(block: Float[np.ndarray, "_ channels"], subtype: str) -> np.ndarray:
    """The values that libsndfile stores unchanged: it scales floats by 32,767, but 16-bit samples by 1 / 32,768."""
    if subtype in ("FLOAT", "DOUBLE"):
        return block.astype("float32" if subtype == "FLOAT" else "float64")
    steps = float(1 << (_BITS[subtype] - 1))
    return (np.rint(block * steps).clip(-steps, steps - 1) * (2**31 / steps)).astype("int32")


def _write(path: Path, blocks: Iterable[np.ndarray], sample_hz: int, channels: int, subtype: str, kind: str) -> None:
    with _Target(path, "w+") as target:
        failure: Exception | None = None
        try:
            with soundfile.SoundFile(target, "w", sample_hz, channels, subtype=subtype, format=kind) as file:
                for block in blocks:
                    file.write(block)
                    if target.error is not None:
                        break
        except (soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts that all was written
            failure = error
        if target.error is not None:
            raise target.error
        if failure is not None:
            raise OSError(str(failure)) from failure
