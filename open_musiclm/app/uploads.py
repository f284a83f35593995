"""Uploaded files: what counts as one, and how many bytes of them are kept."""

from contextlib import suppress
from pathlib import Path
from typing import Any


def is_upload(uploads: Path, path: Any) -> bool:
    """Whether `path`, which a client sent, is a file in the folder of uploads."""
    if not isinstance(path, str) or "\0" in path:
        return False
    found = Path(path).resolve()
    return found.is_relative_to(uploads.resolve()) and found.is_file()


def remove_oldest(uploads: Path, most_bytes: int) -> None:
    """Removes the oldest uploads until the others have at most `most_bytes` together."""
    files = []
    for path in uploads.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            if path.is_file():
                files.append((status.st_mtime, status.st_size, path))
    kept = 0
    for _, size, path in sorted(files, reverse=True):
        kept += size
        if kept > most_bytes:
            path.unlink(missing_ok=True)
