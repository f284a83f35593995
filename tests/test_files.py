"""Atomic writes: full disks, what killed processes leave, files where folders belong."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from helpers import forks

from open_musiclm import files
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write, prepare_folder, write_json

WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from open_musiclm.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from open_musiclm.audio import write_wave
from open_musiclm.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_wave(Path(sys.argv[1]), torch.rand(30000) - 0.5, 24000)
except UserError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not written yet."""
    monkeypatch.setattr(files, "_cleaned", set())


def writer(path: Path) -> forks.Fork:
    """A process that is writing `path`."""
    process = forks.Fork(["-c", WRITE_AND_WAIT, path])
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    killed, alive = writer(tmp_path / "a.json"), writer(tmp_path / "b.json")
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (tmp_path / ".2024.notes.json").write_text("somebody else's")
        assert len(list(tmp_path.iterdir())) == 3
        write_json(tmp_path / "c.json", {})
        left = sorted(path.name for path in tmp_path.iterdir())
        assert len(left) == 3
        assert [name for name in left if str(alive.pid) in name]
        assert left[-1] == "c.json"
        assert ".2024.notes.json" in left
    finally:
        alive.kill()
        alive.wait()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with contextlib.suppress(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [lambda folder: write_json(folder / "b" / "c.json", 1), prepare_folder])
def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path, write) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path / 'file'} is a file, not a folder"):
        write(tmp_path / "file" / "a")


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(UserError, match="/proc/nowhere: cannot write"):
        prepare_folder(Path("/proc/nowhere"))
    with pytest.raises(UserError, match="not the name of a folder"):
        prepare_folder(Path("a\0b"))


def test_a_prepared_folder_is_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("limit", [0, 10, 5000, 40000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, limit: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    answer = forks.run(["-c", FULL_DISK, path, limit])
    assert answer.stdout == f"{path}: cannot write: File too large\n"
    assert list(tmp_path.iterdir()) == []
