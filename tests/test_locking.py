"""One run in a folder at a time: with POSIX locks and without, after kills, and between several."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.file_system import poor_file_system
from helpers.paths import REPOSITORY

from open_musiclm.errors import UserError
from open_musiclm.locking import LOCK_NAME, FolderLock

# Takes the lock of a folder, says so and waits for a line; or says why it does not get it.
HOLDER = """
import sys
from pathlib import Path
from open_musiclm.errors import UserError
from open_musiclm.locking import FolderLock
try:
    with FolderLock(Path(sys.argv[1])):
        print("taken", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""
# Several of these at once: each counts to a number in a file that only the holder of the lock may touch.
COUNTER = """
import sys, time
from pathlib import Path
from open_musiclm.errors import UserError
from open_musiclm.locking import FolderLock
count, folder = 0, Path(sys.argv[1])
while count < 40:
    try:
        with FolderLock(folder / "locked"):
            number = int((folder / "number").read_text())
            time.sleep(0.0002)
            (folder / "number").write_text(str(number + 1))
            count += 1
    except UserError:
        pass
    time.sleep(0.0002)
"""


@pytest.fixture(params=["posix", "file"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """With POSIX locks, and without."""
    if request.param == "posix":
        return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return {**poor_file_system(tmp_path, locking_fails=errno.ENOSYS), "PYTHONPATH": str(REPOSITORY)}


class Holder:
    """A process that takes the lock of a folder; `answer` is the line that it prints."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        words = [sys.executable, "-c", HOLDER, str(folder)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.answer = self.process.stdout.readline().strip()

    def end(self, how: signal.Signals | None = None) -> None:
        if how is None:
            self.process.communicate("\n")
        else:
            self.process.send_signal(how)
            self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "results" / "run"


def test_the_second_is_refused_and_told_who_is_there(folder: Path, environment: dict[str, str]) -> None:
    first = Holder(folder, environment)
    second = Holder(folder, environment)
    assert first.answer == "taken"
    assert re.match(
        rf"{folder}: another run is writing there \(process {first.process.pid} on \S+\); wait for it to end",
        second.answer,
    )
    second.end()
    first.end()
    third = Holder(folder, environment)
    assert third.answer == "taken"
    third.end()


def test_a_killed_process_holds_nothing(folder: Path, environment: dict[str, str]) -> None:
    Holder(folder, environment).end(signal.SIGKILL)
    assert (folder / LOCK_NAME).exists()
    next_one = Holder(folder, environment)
    assert next_one.answer == "taken"
    next_one.end()


def test_an_unused_folder_is_as_it_was(folder: Path, environment: dict[str, str]) -> None:
    Holder(folder, environment).end()
    assert not folder.parent.exists()
    folder.mkdir(parents=True)
    Holder(folder, environment).end()
    assert list(folder.iterdir()) == []


def test_many_at_once_exclude_each_other(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "number").write_text("0")
    (tmp_path / "locked").mkdir()
    words = [sys.executable, "-c", COUNTER, str(tmp_path)]
    processes = [subprocess.Popen(words, env=environment) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "160"


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, True),
        ({"started": "1"}, False),  # the id is another process's now
        ({"host": "elsewhere"}, True),  # nothing is known of it
        ({"host": "elsewhere", "by": "posix"}, False),  # its lock would be seen
        ({"pid": 1 << 30}, False),
    ],
)
def test_a_file_of_a_system_without_locks_counts_where_its_process_may_live(
    folder: Path, environment: dict[str, str], change: dict, refused: bool
) -> None:
    """The same folder may have locks on one host and none on another."""
    if "LOCKING_FAILS" in environment and change.get("by") == "posix":
        pytest.skip("without locks it may live")
    with FolderLock(folder):
        owner = json.loads((folder / LOCK_NAME).read_text())
    folder.mkdir(parents=True)
    (folder / LOCK_NAME).write_text(json.dumps({**owner, "by": "file", **change}))
    holder = Holder(folder, environment)
    assert holder.answer.startswith(f"{folder}: another run") == refused
    if refused:
        assert holder.answer.endswith(f"if it has ended, remove {folder / LOCK_NAME}")
    else:
        assert holder.answer == "taken"
    holder.end()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x"}', b"\xff" * 9000])
def test_a_damaged_file_is_no_lock(folder: Path, environment: dict[str, str], content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / LOCK_NAME).write_bytes(content)
    os.utime(folder / LOCK_NAME, (1, 1))  # not one that is about to be written
    holder = Holder(folder, environment)
    assert holder.answer == "taken"
    holder.end()


def test_a_forked_process_neither_has_the_lock_nor_gives_it_free(folder: Path) -> None:
    with FolderLock(folder) as lock:
        child = os.fork()
        if not child:
            lock.release()
            try:
                FolderLock(folder)
            except UserError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert (folder / LOCK_NAME).exists()
    assert not folder.exists()


@pytest.mark.parametrize("in_place", ["file", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, in_place: str) -> None:
    if in_place == "file":
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "run"
    else:
        folder = tmp_path / "run"
        (folder / LOCK_NAME).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^--out {folder}: cannot write there: (Not|Is) a"):
        FolderLock(folder, called="--out ")
