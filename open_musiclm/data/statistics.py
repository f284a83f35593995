"""Mean and deviation of whole sound files, cached, so that a file is decoded once and not for every crop."""

import math
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from open_musiclm.audio import (
    SoundError,
    SoundInfo,
    WaveStatistics,
    check_length,
    count_frames,
    header_info,
    wave_statistics,
)
from open_musiclm.errors import UserError
from open_musiclm.locking import has_posix_locks
from open_musiclm.terminal import print_stderr

_WAIT_SECONDS = 60.0
_TABLES = (
    """CREATE TABLE IF NOT EXISTS wave_statistics (
        path BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER, mean REAL, standard_deviation REAL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS counted_frames (
        path BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER, frames INTEGER
    ) WITHOUT ROWID""",
)
_FIND = "SELECT mean, standard_deviation FROM wave_statistics WHERE path = ? AND size = ? AND modified_ns = ?"
_STORE = "INSERT OR REPLACE INTO wave_statistics VALUES (?, ?, ?, ?, ?)"
_FIND_FRAMES = "SELECT frames FROM counted_frames WHERE path = ? AND size = ? AND modified_ns = ?"
_STORE_FRAMES = "INSERT OR REPLACE INTO counted_frames VALUES (?, ?, ?, ?)"
_NOWHERE = (b"", 0, 0)
_MOST_FRAMES_OF_A_BYTE = 10_000


class StatisticsCache:
    """Statistics by path, size and time of change, in a small SQLite file; without a file, in memory.

    Workers, processes and runs share the file. A damaged file is created again, and invalid values are computed again.
    If SQLite cannot be used, statistics are kept in memory. Raises UserError if the folder is not writable.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        if file is not None and not _made(file):
            self.file = None

    def of(self, path: Path) -> WaveStatistics:
        """The statistics of a sound file. Raises SoundError, also if the file is silent."""
        version = _version(path)
        stored = self._found(_FIND, version)
        if stored is not None and all(isinstance(value, float) and math.isfinite(value) for value in stored):
            statistics = WaveStatistics(*stored)
            if not statistics.silent:  # a silent file is not cached
                return statistics
        statistics = wave_statistics(path)
        self._remember(_STORE, (*version, statistics.mean, statistics.standard_deviation))
        return statistics

    def info(self, path: Path) -> SoundInfo:
        """The header of a sound file with its exact length; if that needs decoding, the file is decoded once.

        Raises SoundError, also if the file is too short.
        """
        info = header_info(path)
        info = replace(info, frames=self._counted_frames(path), estimated=False) if info.estimated else info
        check_length(path, info)
        return info

    def _counted_frames(self, path: Path) -> int:
        version = _version(path)
        stored = self._found(_FIND_FRAMES, version)
        if stored is not None and isinstance(stored[0], int) and 0 < stored[0] <= _MOST_FRAMES_OF_A_BYTE * version[1]:
            return stored[0]
        frames = count_frames(path)
        self._remember(_STORE_FRAMES, (*version, frames))
        return frames

    def _found(self, query: str, version: tuple) -> tuple | None:
        """The row of this version of a file, if it is cached."""
        with suppress(sqlite3.Error):
            return self._own().execute(query, version).fetchone()
        return None

    def _remember(self, command: str, values: tuple) -> None:
        with suppress(sqlite3.Error):
            self._own().execute(command, values)

    def _own(self) -> sqlite3.Connection:
        """This process's own connection: SQLite's must not be carried into a forked worker, nor be closed there."""
        if self._connection is None or self._process != os.getpid():
            self._inherited = self._connection
            self._connection = _connect(self.file)
            self._process = os.getpid()
        return self._connection

    def __getstate__(self) -> dict:
        return {"file": self.file, "_connection": None, "_process": 0}


def _made(file: Path) -> bool:
    """Creates the file if it is missing or not our database.

    Returns whether SQLite can use it: some file systems have no locks. Raises UserError.
    """
    try:
        if file.exists() and not file.is_file():
            raise UserError(f"{file}: cannot store statistics there: not a regular file; remove it")
        file.parent.mkdir(parents=True, exist_ok=True)
        if not has_posix_locks(file.parent):  # SQLite takes some refusals for a lock of another process, and waits
            raise sqlite3.OperationalError("the file system has no locks")
        try:
            _check(file)
        except sqlite3.Error as error:
            if not _damaged(error):
                raise
            file.unlink(missing_ok=True)  # it only saves time
            _check(file)
    except sqlite3.Error as error:
        where = f"{file}: cannot be used there ({error})"
        print_stderr(f"{where}: the statistics of sound files are kept in memory only")
        return False
    except OSError as error:
        raise UserError(f"{file}: cannot write there: {error.strerror}") from error
    return True


def _check(file: Path) -> None:
    """Raises sqlite3.Error if the file is no database, or its tables are others."""
    with closing(_connect(file)) as connection:
        connection.execute(_FIND, _NOWHERE).fetchone()
        connection.execute(_FIND_FRAMES, _NOWHERE).fetchone()


def _damaged(error: sqlite3.Error) -> bool:
    """Whether the content of the file is wrong, not the disk, a lock or a permission."""
    return not isinstance(error, sqlite3.OperationalError) or str(error).startswith(("no such", "table", "view"))


def _connect(file: Path | None) -> sqlite3.Connection:
    connection = sqlite3.connect(file or ":memory:", timeout=_WAIT_SECONDS, isolation_level=None)
    try:
        for table in _TABLES:
            connection.execute(table)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _version(path: Path) -> tuple[bytes, int, int]:
    """The key of a file: its path, size and time of change."""
    try:
        status = path.stat()
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror}") from error
    return os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns
