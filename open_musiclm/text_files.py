"""Reads text files: regular files of bounded size, UTF-8 with or without a byte order mark."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from open_musiclm.errors import UserError

LARGEST_LINE = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_text(path: Path, most_bytes: int) -> str:
    """The whole text of a file of at most `most_bytes`. Raises UserError."""
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UserError(f"{path}: larger than {most_bytes >> 10:,} KiB, which is no file of this kind")
    return _decoded(content.removeprefix(_BYTE_ORDER_MARK), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that hold more than spaces, each after its place, "path:number"; one at a time.

    Only line feeds end a line: text may hold U+2028 and its like. Raises UserError.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(LARGEST_LINE + 1):
            number += 1
            place = f"{path}:{number}"
            if len(line) > LARGEST_LINE:
                raise UserError(f"{place}: longer than {LARGEST_LINE >> 20} MiB, which is no line of this kind of file")
            text = _decoded(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line, place).strip()
            if text:
                yield place, text


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file; a pipe or device could block or never end. Raises UserError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a regular file but {_kind_of(path)}")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise UserError(f"{os.fspath(path)!r}: not the path of a file: {error}") from error


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = content[error.start]
        raise UserError(f"{place}: not UTF-8 text: byte {found:#04x} at offset {error.start}") from error


def _kind_of(path: Path) -> str:
    """What a path that is no regular file is."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(path.stat().st_mode), "a device")
