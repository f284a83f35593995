"""Caches that were damaged or edited: what they held is computed again, silently."""

import errno
import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.sound_files import write_tone

from open_musiclm.audio import SoundInfo, wave_statistics
from open_musiclm.data import statistics
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.training.backbones.clap_model import build_feature_extractor
from open_musiclm.training.backbones.spectrograms import Spectrograms


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "tone.wav", 0.5)


def remembered(file: Path) -> list[tuple]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT mean, standard_deviation FROM wave_statistics").fetchall()


@pytest.mark.parametrize("damage", ["text", "cut", "bytes", "foreign table", "view", "other columns"])
def test_a_damaged_cache_of_statistics_is_made_again(tmp_path: Path, sound: Path, damage: str) -> None:
    file = tmp_path / "statistics.sqlite"
    StatisticsCache(file).of(sound)
    content = file.read_bytes()
    if damage == "text":
        file.write_text("not a database, but words that fill more than a header of one " * 20)
    elif damage == "cut":
        file.write_bytes(content[:5000])
    elif damage == "bytes":
        file.write_bytes(content[:100] + bytes(4000) + content[4100:])
    else:
        file.unlink()
        with closing(sqlite3.connect(file)) as connection:
            created = {
                "foreign table": "TABLE wave_statistics (name TEXT)",
                "view": "VIEW wave_statistics AS SELECT 1 AS mean",
                "other columns": "TABLE counted_frames (path, size, frames)",
            }
            connection.execute(f"CREATE {created[damage]}")
    expected = wave_statistics(sound)
    assert StatisticsCache(file).of(sound) == expected
    assert remembered(file) == [(expected.mean, expected.standard_deviation)]


@pytest.mark.parametrize(
    "values",
    [
        {"mean": None},
        {"mean": "loud"},
        {"mean": b"x"},
        {"mean": 1e400},
        {"standard_deviation": None},
        {"standard_deviation": -1.0},
        {"standard_deviation": 0.0},
        {"standard_deviation": float("inf")},
    ],
)
def test_statistics_that_make_no_sense_are_computed_again(tmp_path: Path, sound: Path, values: dict) -> None:
    file = tmp_path / "statistics.sqlite"
    expected = StatisticsCache(file).of(sound)
    with closing(sqlite3.connect(file)) as connection, connection:
        for column, value in values.items():
            connection.execute(f"UPDATE wave_statistics SET {column} = ?", (value,))
    assert StatisticsCache(file).of(sound) == expected
    assert remembered(file) == [(expected.mean, expected.standard_deviation)]


@pytest.mark.parametrize("frames", [None, "many", -5, 0, 2.5, 1 << 60])
def test_lengths_that_make_no_sense_are_counted_again(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, frames: object
) -> None:
    monkeypatch.setattr(statistics, "header_info", lambda path: SoundInfo(16000, 1, 1, "WAV", estimated=True))
    monkeypatch.setattr(statistics, "count_frames", lambda path: 8000)
    file = tmp_path / "statistics.sqlite"
    assert StatisticsCache(file).info(sound).frames == 8000
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE counted_frames SET frames = ?", (frames,))
    assert StatisticsCache(file).info(sound).frames == 8000


def test_statistics_are_kept_in_memory_where_the_file_system_has_no_locks(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect = sqlite3.connect

    def without_locks(file: object, **options: object) -> sqlite3.Connection:
        if file != ":memory:":
            raise sqlite3.OperationalError("disk I/O error")
        return connect(file, **options)

    monkeypatch.setattr(sqlite3, "connect", without_locks)
    cache = StatisticsCache(tmp_path / "statistics.sqlite")
    assert cache.of(sound) == wave_statistics(sound)
    assert "statistics.sqlite: cannot be used there (disk I/O error)" in capsys.readouterr().err


@pytest.mark.parametrize("refusal", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_noticed_at_once(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refusal: int
) -> None:
    """SQLite would take ENOLCK for a lock of another process, and wait for a minute."""

    def refused(*arguments: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "lockf", refused)
    cache = StatisticsCache(tmp_path / "statistics.sqlite")
    assert cache.file is None
    assert cache.of(sound) == wave_statistics(sound)
    assert "the file system has no locks" in capsys.readouterr().err
    assert not any(path.suffix == ".sqlite" for path in tmp_path.iterdir())


def _pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _huge(path: Path) -> None:
    """A header that promises 64 TB."""
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (500000000000, 64), }"
    padded = header.ljust(128 - 10 - 1) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(1000))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "text": lambda path: path.write_text("no array"),
    "pickled": _pickled,
    "huge": _huge,
    "pipe": _pipe,
    "archive": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
    "float64": lambda path: np.save(path, np.zeros((1001, 64))),
    "other mels": lambda path: np.save(path, np.zeros((1001, 32), np.float16)),
    "one axis": lambda path: np.save(path, np.zeros(1001, np.float16)),
    "short": lambda path: np.save(path, np.zeros((1000, 64), np.float16)),
    "not finite": lambda path: np.save(path, np.full((1001, 64), np.nan, np.float16)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_spectrogram_is_computed_again(tmp_path: Path, sound: Path, damage: str) -> None:
    spectrograms = Spectrograms(build_feature_extractor(), tmp_path / "kept")
    expected = spectrograms.of(sound)
    (file,) = (tmp_path / "kept").iterdir()
    content = file.read_bytes()
    DAMAGES[damage](file)
    assert spectrograms.of(sound).equal(expected)
    assert file.read_bytes() == content
