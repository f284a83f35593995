"""Mean and deviation of whole sound files, and where the frames of an mp3 lie: remembered, so that a long file is
walked through and decoded once and not for every crop."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from open_musiclm.audio import (
    MP3,
    SoundError,
    SoundInfo,
    WaveStatistics,
    find_frames,
    indexed,
    sound_info,
    wave_statistics,
)
from open_musiclm.audio.mp3_frames import FrameIndex
from open_musiclm.errors import UserError

_WAIT_SECONDS = 60.0
_INDEX_TABLE = """CREATE TABLE IF NOT EXISTS mp3_frames (
    path BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER, frame_index BLOB
) WITHOUT ROWID"""
_TABLE = """CREATE TABLE IF NOT EXISTS wave_statistics (
    path BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER, mean REAL, standard_deviation REAL
) WITHOUT ROWID"""

_FIND = "SELECT mean, standard_deviation FROM wave_statistics WHERE path = ? AND size = ? AND modified_ns = ?"
_REMEMBER = "INSERT OR REPLACE INTO wave_statistics VALUES (?, ?, ?, ?, ?)"
_FIND_INDEX = "SELECT frame_index FROM mp3_frames WHERE path = ? AND size = ? AND modified_ns = ?"
_REMEMBER_INDEX = "INSERT OR REPLACE INTO mp3_frames VALUES (?, ?, ?, ?)"
_NO_INDEX = b""  # of an mp3 that has to be read from its beginning


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
            known = self._own().execute(_FIND, version).fetchone()
            if known:
                return WaveStatistics(*known)
        statistics = wave_statistics(path, self.info(path))
        with suppress(sqlite3.Error):
            self._own().execute(_REMEMBER, (*version, statistics.mean, statistics.standard_deviation))
        return statistics

    def info(self, path: Path) -> SoundInfo:
        """What the header of a sound file says, and where the frames of an mp3 lie. Raises SoundError."""
        info = sound_info(path)
        return indexed(info, self._frame_index(path)) if info.format == MP3 else info

    def _frame_index(self, path: Path) -> FrameIndex | None:
        version = _version(path)
        with suppress(sqlite3.Error):
            known = self._own().execute(_FIND_INDEX, version).fetchone()
            if known and known[0] == _NO_INDEX:
                return None
            if known and (stored := FrameIndex.from_bytes(known[0])):
                return stored
        found = find_frames(path)
        with suppress(sqlite3.Error):
            self._own().execute(_REMEMBER_INDEX, (*version, found.to_bytes() if found else _NO_INDEX))
        return found

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
    connection.execute(_TABLE)
    connection.execute(_INDEX_TABLE)
    return connection


def _version(path: Path) -> tuple[bytes, int, int]:
    """What a file is remembered by: its path, size and time of change."""
    try:
        status = path.stat()
    except OSError as error:
        raise SoundError(f"{path}: cannot read: {error.strerror}") from error
    return os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns
