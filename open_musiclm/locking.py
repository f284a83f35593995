"""A lock on a folder, so that only one run writes there; it ends with its process.

Where the file system has POSIX locks, one is held on a file in the folder: a killed process holds none, and forked
data workers inherit none. Elsewhere (Lustre, SMB, some NFS) the existence of the file is the lock. The file names its
process: where that one is gone, the file is replaced.
"""

import json
import os
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from open_musiclm.errors import UserError

try:
    import fcntl
except ImportError:  # no POSIX system: no POSIX locks
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
_BEGINNING_SECONDS = 10.0  # a file without content may belong to a process that is about to write it
_MOST_BYTES = 1 << 12


@dataclass(frozen=True)
class Owner:
    """The process that a lock file names; `started` tells it from a later one with the same id."""

    host: str
    pid: int
    started: str
    by: Literal["posix", "file"]

    @classmethod
    def here(cls, by: Literal["posix", "file"]) -> "Owner":
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()), by)

    def is_here(self) -> bool:
        """Whether it is this process."""
        return self == Owner.here(self.by)

    def is_gone(self) -> bool:
        """Whether it has ended for certain: of a process on another host nothing is known."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
        return self.started != _start_of(self.pid)


class FolderLock:
    """Creates a folder and locks it against other processes until `release`, or the end of this process.

    An empty folder that the lock created is removed again. `called`, an option, precedes the folder in messages. Raises
    UserError if another process has the lock, or nothing can be written.
    """

    def __init__(self, folder: Path, name: str = LOCK_NAME, called: str = "") -> None:
        self.folder, self.path, self._called = folder, folder / name, called
        self._process = os.getpid()
        self._made: list[Path] = []
        self._descriptor: int | None = None
        try:
            self._made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            while not self._take():
                pass
        except OSError as error:
            self._remove_folders()
            raise UserError(f"{called}{folder}: cannot write there: {error.strerror or error}") from error

    def release(self) -> None:
        """Releases the folder; does nothing a second time, or in a forked process."""
        if self._process != os.getpid():
            return
        self._process = 0
        with suppress(OSError):
            if self._descriptor is not None:
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self.path)):
                    self.path.unlink()
            elif (owner := _owner(self.path.read_bytes())) is not None and owner.is_here():
                self.path.unlink()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._remove_folders()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take(self) -> bool:
        """Takes the lock; False if the file was replaced meanwhile. Raises OSError, UserError."""
        try:
            descriptor, is_new = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            try:
                descriptor, is_new = os.open(self.path, os.O_RDWR), False
            except FileNotFoundError:
                return False
        try:
            taken = self._take_posix(descriptor, is_new)
            if taken is None:
                taken = self._take_file(descriptor, is_new)
        except BaseException:
            os.close(descriptor)
            raise
        if self._descriptor is None:
            os.close(descriptor)
        return taken

    def _take_posix(self, descriptor: int, is_new: bool) -> bool | None:
        """None if the file system has no POSIX locks."""
        if fcntl is None:
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise self._refusal(_owner(_content(descriptor)), is_certain=True) from error
        except OSError:
            return None
        try:
            if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                return False
        except FileNotFoundError:
            return False
        owner = None if is_new else _owner(_content(descriptor))
        if owner is not None and owner.by == "file" and not (owner.is_here() or owner.is_gone()):
            raise self._refusal(owner)  # a host where the same file system has no locks
        _write(descriptor, Owner.here("posix"))
        self._descriptor = descriptor
        return True

    def _take_file(self, descriptor: int, is_new: bool) -> bool:
        if is_new:
            _write(descriptor, Owner.here("file"))
            return True
        content = _content(descriptor)
        owner = _owner(content)
        if owner is not None and owner.is_here():
            return True
        age = time.time() - os.fstat(descriptor).st_mtime
        if (owner is None and age < _BEGINNING_SECONDS) or (owner is not None and not owner.is_gone()):
            raise self._refusal(owner)
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            os.replace(self.path, aside)
            if aside.read_bytes()[:_MOST_BYTES] == content:
                aside.unlink()
            else:  # another process was faster, and this is its lock
                os.replace(aside, self.path)
        return False

    def _refusal(self, owner: Owner | None, is_certain: bool = False) -> UserError:
        whose = f" (process {owner.pid} on {owner.host})" if owner is not None else ""
        remedy = "wait for it to end, or choose another folder"
        if not is_certain:
            remedy += f"; if it has ended, remove {self.path}"
        return UserError(f"{self._called}{self.folder}: another run is writing there{whose}; {remedy}")

    def _remove_folders(self) -> None:
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()


def has_posix_locks(folder: Path) -> bool:
    """Whether the file system of a folder has POSIX locks; a temporary file there is locked to see. Raises OSError."""
    if fcntl is None:
        return False
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, _MOST_BYTES, 0)


def _owner(content: bytes) -> Owner | None:
    """Who a lock file names; None if it is not written yet, or damaged."""
    try:
        owner = Owner(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
    return owner if isinstance(owner.pid, int) and owner.pid > 0 else None


def _write(descriptor: int, owner: Owner) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)


def _start_of(pid: int) -> str:
    """When a process was started, in clock ticks since the system's start; empty if the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
