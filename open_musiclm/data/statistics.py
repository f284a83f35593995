"""Mean and deviation of whole sound files, remembered, so that a file is decoded once and not for every crop."""

import os
import sqlite3
from contextlib import suppress
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


class StatisticsCache:
    """Statistics by path, size and time of change, in a small SQLite file; without a file, in memory.

    Workers, processes and runs share the file. Raises UserError where it cannot be used; where the disk refuses
    later on, statistics are computed again.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                _connect(file).close()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{file}: cannot remember statistics there ({error}); remove this file") from error

    def of(self, path: Path) -> WaveStatistics:
        """The statistics of a sound file. Raises SoundError, also where the file is silent."""
        version = _version(path)
        with suppress(sqlite3.Error):
            stored = self._own().execute(_FIND, version).fetchone()
            if stored:
                return WaveStatistics(*stored)
        statistics = wave_statistics(path)
        with suppress(sqlite3.Error):
            self._own().execute(_STORE, (*version, statistics.mean, statistics.standard_deviation))
        return statistics

    def info(self, path: Path) -> SoundInfo:
        """The header of a sound file with its exact length; where that takes decoding, it is done once.

        Raises SoundError, also where the file is too short.
        """
        info = header_info(path)
        info = replace(info, frames=self._counted_frames(path), estimated=False) if info.estimated else info
        check_length(path, info)
        return info

    def _counted_frames(self, path: Path) -> int:
        version = _version(path)
        with suppress(sqlite3.Error):
            stored = self._own().execute(_FIND_FRAMES, version).fetchone()
            if stored:
                return stored[0]
        frames = count_frames(path)
        with suppress(sqlite3.Error):
            self._own().execute(_STORE_FRAMES, (*version, frames))
        return frames

    def _own(self) -> sqlite3.Connection:
        """This process's own connection: SQLite's must not be carried into a forked worker, nor be closed there."""
        if self._connection is None or self._process != os.getpid():
            self._inherited = self._connection
            self._connection = _connect(self.file)
            self._process = os.getpid()
        return self._connection

    def __getstate__(self) -> dict:
        return {"file": self.file, "_connection": None, "_process": 0}


def _connect(file: Path | None) -> sqlite3.Connection:
    connection = sqlite3.connect(file or ":memory:", timeout=_WAIT_SECONDS, isolation_level=None)
    for table in _TABLES:
        connection.execute(table)
    return connection


def _version(path: Path) -> tuple[bytes, int, int]:
    """What a file is remembered by: its path, size and time of change."""
    try:
        status = path.stat()
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror}") from error
    return os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns
