"""Opening a sound file part by part, by libsndfile."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

from open_musiclm.audio.c_stderr import c_stderr_hidden
from open_musiclm.audio.containers import layout_of
from open_musiclm.audio.layout import Layout, Part, PartReader, TooManyParts
from open_musiclm.errors import SoundError

MP3, OGG = "MP3", "OGG"  # as libsndfile names the formats
_RAW = "RAW"  # what it takes a file for that has nothing but a known suffix
_LONGEST_PATH_BYTES = 1000  # that it opens by name
_PLAUSIBLE_HZ = (1000, 1_000_000)


class OpenSound(soundfile.SoundFile):
    """A part of a sound file that is open for reading.

    Reading continues at the last position: a seek after each block would fail in files of unknown length. Positions
    are counted here: some encodings (GSM 6.10) cannot even tell theirs.
    """

    _position = 0

    def seekable(self) -> bool:
        """False, so that soundfile does not seek after each block; `go_to` seeks."""
        return False

    def block(self, frames: int, dtype: str = "float32") -> Float[np.ndarray, "samples channels"]:
        """The next samples [up to `frames`, channels]; none at the end.

        Raises soundfile.LibsndfileError if the very next sample cannot be decoded.
        """
        with c_stderr_hidden():
            block = np.empty((frames, self.channels), dtype)
            try:
                block = self.read(out=block)
            except soundfile.LibsndfileError as error:
                decoded = self._reported_position() - self._position
                if decoded <= 0:
                    raise error
                block = block[:decoded]
            self._position += len(block)
            return block

    def go_to(self, frame: int) -> None:
        """Raises soundfile.LibsndfileError."""
        with c_stderr_hidden():
            self._position = self.seek(frame)

    def _reported_position(self) -> int:
        """libsndfile's own position, 0 where it has none."""
        try:
            return self.tell()
        except soundfile.LibsndfileError:
            return 0


def layout(path: Path) -> Layout:
    """The layout of a sound file. Raises SoundError if it is missing, empty or cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SoundError(f"{path}: not a file")
        if status.st_size == 0:
            raise SoundError(f"{path}: an empty file")
        str(path).encode()
        return layout_of(path, status)
    except TooManyParts as error:
        raise SoundError(f"{path}: {error}, which is too much to read; split it") from error
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise SoundError(f"{os.fsencode(path)!r}: a file name that is not valid Unicode; rename the file") from error
    except ValueError as error:
        raise SoundError(f"{str(path)!r}: a file name that no file can have ({error})") from error


@contextmanager
def opened(path: Path, part: Part) -> Iterator[OpenSound]:
    """A part of a sound file. Raises SoundError, also for what libsndfile cannot decode inside the block."""
    try:
        with ExitStack() as stack:
            source: Any = str(path)
            if part.spans or len(source.encode()) > _LONGEST_PATH_BYTES:
                source = stack.enter_context(path.open("rb"))
            if part.spans:
                source = PartReader(source, part.spans)
            with c_stderr_hidden():
                file = stack.enter_context(OpenSound(source))
            _check(path, file)
            yield file
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror or error}") from error
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a suffix without a header (.raw)
        raise SoundError(f"{path}: not a sound file, or of a kind that cannot be decoded") from error


def _check(path: Path, file: OpenSound) -> None:
    if file.format == _RAW:
        raise SoundError(f"{path}: not a sound file: it has no header that says how to read it")
    if file.frames <= 0 or not _PLAUSIBLE_HZ[0] <= file.samplerate <= _PLAUSIBLE_HZ[1]:
        raise SoundError(f"{path}: holds no sound ({file.frames} samples at {file.samplerate} Hz)")
