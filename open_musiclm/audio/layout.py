"""Layouts of sound files: which bytes have the sound, and whether the length in the header is right."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

# A file of which less than this share is there has a wrong header, not a missing end.
_SMALLEST_TRUNCATED_SHARE = 0.1
MOST_PARTS = 10_000
Span = tuple[int, int]  # bytes [first, end) of the file


class TooManyParts(Exception):
    """A file of more joined files, or of more places where one may begin, than are looked through."""

    def __init__(self, what: str = f"more than {MOST_PARTS:,} files joined into one") -> None:
        super().__init__(what)


@dataclass(frozen=True)
class Part:
    """Sound that libsndfile decodes as one file: byte ranges of the file, or replacement bytes; none: the whole file.

    `measured`: the length is known only by decoding; libsndfile's value is then never too small.
    """

    spans: tuple[Span | bytes, ...] = ()
    measured: bool = False


@dataclass(frozen=True)
class Layout:
    """The parts of a file, which follow each other: more than one in joined files."""

    parts: tuple[Part, ...] = (Part(),)

    @property
    def measured(self) -> bool:
        """Whether the length of any part is known only by decoding."""
        return any(part.measured for part in self.parts)


PLAIN = Layout()


class PartReader(io.RawIOBase):
    """A part as a file of its own. Never raises while it is read: libsndfile's callbacks cannot."""

    def __init__(self, file: BinaryIO, spans: Sequence[Span | bytes]) -> None:
        self.file, self.spans = file, spans
        sizes = [len(span) if isinstance(span, bytes) else span[1] - span[0] for span in spans]
        self.starts = [0, *accumulate(sizes)]
        self._position = 0

    def readable(self) -> bool:
        """True, see io.IOBase."""
        return True

    def seekable(self) -> bool:
        """True, see io.IOBase."""
        return True

    def tell(self) -> int:
        """The position within the part, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the part; a place before its beginning becomes its beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.starts[-1]}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills the buffer as far as there is something left; a file that fails ends there."""
        target, filled = memoryview(buffer).cast("B"), 0
        while filled < len(target) and self._position < self.starts[-1]:
            number = bisect_right(self.starts, self._position) - 1
            inside = self._position - self.starts[number]
            wanted = min(len(target) - filled, self.starts[number + 1] - self._position)
            content = self._content(self.spans[number], inside, wanted)
            if not content:
                break
            target[filled : filled + len(content)] = content
            filled += len(content)
            self._position += len(content)
        return filled

    def _content(self, span: Span | bytes, inside: int, wanted: int) -> bytes:
        if isinstance(span, bytes):
            return span[inside : inside + wanted]
        try:
            self.file.seek(span[0] + inside)
            return self.file.read(wanted)
        except OSError:
            return b""


def is_truncated(promised: int, found: int) -> bool:
    """Whether a header that states more than was found may be right: then the file is truncated."""
    return found < promised <= found / _SMALLEST_TRUNCATED_SHARE
