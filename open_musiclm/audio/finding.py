"""Finding sound files below a folder."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from open_musiclm.errors import UserError

SOUND_EXTENSIONS = frozenset((".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".caf", ".au"))
# Kinds of sound that cannot be read here.
UNREADABLE_EXTENSIONS = frozenset(
    (".m4a", ".m4b", ".mp4", ".aac", ".wma", ".ape", ".wv", ".mpc", ".mka", ".webm", ".ac3", ".dsf", ".tta", ".amr")
)
_LONGEST_SHOWN = 200


def find_sounds(folder: Path | str) -> list[Path]:
    """All sound files below `folder`, sorted; extensions match in any case.

    Hidden files and folders are left out. Symbolic links are followed; a file with several paths is found once. Raises
    UserError if there is no sound, or if a folder cannot be read.
    """
    folder = Path(folder)
    sounds = _found(folder, SOUND_EXTENSIONS)
    if not sounds:
        kinds, others = " ".join(sorted(SOUND_EXTENSIONS)), find_unreadable_sounds(folder)
        of_other_kinds = f"; {len(others)} of a kind that cannot be read, such as {others[0]}" if others else ""
        raise UserError(
            f"{_shortened(folder)}: no sound file in this folder or below it (looked for {kinds}{of_other_kinds})"
        )
    return sounds


def find_unreadable_sounds(folder: Path) -> list[Path]:
    """All files below `folder` whose names say that they are sound of a kind that cannot be read here, sorted.

    Raises UserError if a folder cannot be read.
    """
    return _found(folder, UNREADABLE_EXTENSIONS)


def find_named(folder: Path, name: str) -> list[Path]:
    """All files of that name in the folders where `find_sounds` looks, sorted; none if there is no such folder.

    Raises UserError if a folder cannot be read.
    """
    return sorted(path for path in _files(folder) if path.name == name) if _is_folder(folder) else []


def _found(folder: Path, extensions: frozenset[str]) -> list[Path]:
    """The files with one of these extensions, each once, sorted."""
    if not _is_folder(folder):
        raise UserError(f"{_shortened(folder)}: no such folder of sound")
    seen: set[tuple[int, int]] = set()
    of_the_kind = sorted(path for path in _files(folder) if path.suffix.lower() in extensions)
    return [path for path in of_the_kind if _is_new(path, seen)]


def _files(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden. A folder is entered once, by its own name if it has one below `folder`."""
    real, linked = deque([folder]), deque[Path]()
    seen: set[tuple[int, int]] = set()
    while real or linked:
        inside = real.popleft() if real else linked.popleft()
        if not _is_new(inside, seen):
            continue
        try:
            with os.scandir(inside) as scan:
                entries = sorted((entry for entry in scan if entry.name[:1] != "."), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{_shortened(inside)}: cannot read this folder: {error.strerror or error}") from error
        for entry in entries:
            path = inside / entry.name
            if not _is_folder(entry):
                yield path
            else:
                (linked if entry.is_symlink() else real).append(path)


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether the file is new, not another path of an earlier file."""
    identity = _identity(path)
    if identity is None or not identity[1]:  # a file system without numbers
        return True
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: "Path | os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except (OSError, ValueError):  # a link to itself; a NUL in the name
        return False


def _shortened(path: Path) -> str:
    text = str(path).replace("\0", "\\0")
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:100]}...{text[-80:]}"
