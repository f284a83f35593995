"""Atomic file writes.

A file is written under a temporary name and renamed when it is whole. The temporary name holds the process and a tag of
the machine, so that files of killed processes can be distinguished from those being written.
"""

import errno
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from open_musiclm.errors import UserError

# What file systems say that cannot sync a folder: SMB, shared folders of virtual machines.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
_MACHINE = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
_TEMPORARY = re.compile(rf"\.(\d{{1,9}})-{_MACHINE}\..+", re.DOTALL)
_cleaned: set[Path] = set()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; it is synced and renamed to `path` when the block ends well.

    Raises UserError if writing fails.
    """
    temporary = temporary_path(path)
    try:
        _make_folder(path.parent)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot write: {_reason(path, error)}") from error


def prepare_folder(folder: Path) -> None:
    """Creates a folder for results, and tests writing there. Raises UserError."""
    probe = temporary_path(folder / "probe")
    try:
        _make_folder(folder)
        try:
            probe.write_bytes(b"probe")
        finally:
            with suppress(OSError):
                probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot write to this folder: {_reason(probe, error)}") from error
    except ValueError as error:
        raise UserError(f"{os.fspath(folder)!r}: not the name of a folder: {error}") from error


def write_json(path: Path, content: object) -> None:
    """Writes JSON: numbers that are not finite as null, text that is not UTF-8 (some file names) escaped.

    Raises UserError.
    """
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a surrogate as JSON escapes it


def write_html(path: Path, page: str) -> None:
    """Writes a page, where text that is not UTF-8 (some file names) becomes character references. Raises UserError."""
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")


def _finite(content: object) -> object:
    """The content with None in place of NaN and infinity, which JSON does not know."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


def temporary_path(path: Path) -> Path:
    """The name under which this process writes `path` until it is whole."""
    return path.with_name(f".{os.getpid()}-{_MACHINE}.{path.name}")


def sync(path: Path) -> None:
    """Makes sure that a file, or a folder where the file system can do that, is on the disk before it is renamed.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _CANNOT_SYNC):
            raise


def _make_folder(folder: Path) -> None:
    """Makes the folder; removes, once in a process, what killed processes of this machine left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            left = _TEMPORARY.fullmatch(entry.name)
            if left and not _alive(int(left[1])):
                os.unlink(entry.path)


def _alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def _reason(path: Path, error: OSError) -> str:
    """Why `path` cannot be written."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        blocking = next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), path.parent)
        return f"{blocking} is a file, not a folder"
    return error.strerror or str(error)
