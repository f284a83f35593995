"""Uploaded files: what counts as one, how it is read, and how many bytes of them are kept."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from open_musiclm.audio import Sound, SoundError, header_info, is_longer, read_sound
from open_musiclm.errors import UserError


def is_upload(uploads: Path, path: Any) -> bool:
    """Whether `path`, which a client sent, is a file in the folder of uploads."""
    if not isinstance(path, str) or "\0" in path:
        return False
    found = Path(path).resolve()
    return found.is_relative_to(uploads.resolve()) and found.is_file()


def read_upload(uploads: Path, path: Any, most_seconds: float, most_hz: int) -> Sound:
    """An uploaded sound, read only where it has no more seconds, and no more samples than these have at `most_hz`.

    Raises UserError, which names the file alone.
    """
    if not is_upload(uploads, path):
        raise UserError("style sound: a file is named that was not uploaded here, or is not kept any more")
    found = Path(path).resolve()
    try:
        seconds = most_seconds * min(most_hz / header_info(found).sample_hz, 1)
        if is_longer(found, seconds):
            raise SoundError(f"{found}: longer than {seconds:g} s, which are the most that are taken; cut it")
        return read_sound(found)
    except SoundError as error:
        raise UserError(f"style sound: {str(error).replace(str(found), found.name)}") from error


def remove_oldest(uploads: Path, most_bytes: int, most_files: int) -> None:
    """Removes the oldest uploads until the others are at most so many, with at most so many bytes together."""
    files = []
    for path in uploads.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            if path.is_file():
                files.append((status.st_mtime, status.st_size, path))
    kept = 0
    for number, (_, size, path) in enumerate(sorted(files, reverse=True), start=1):
        kept += size
        if kept > most_bytes or number > most_files:
            path.unlink(missing_ok=True)
            if path.parent != uploads:
                with suppress(OSError):  # another upload is in it
                    path.parent.rmdir()
