"""Preprocessing under kills at random times, workers that die, files that disappear and a full disk."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
from helpers.file_system import poor_file_system
from helpers.paths import REPOSITORY
from helpers.preprocessing import CONFIG, content_of, preprocess, script_command, settings_of, start
from helpers.small_stack import Stack
from helpers.sound_files import write_ramp

from open_musiclm.audio import SoundInfo, find_sounds, header_info
from open_musiclm.data import preprocess as preprocessing_module
from open_musiclm.data import statistics
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError

KILLS = 20


def _sounds(folder: Path, count: int) -> None:
    for n in range(count):
        write_ramp(folder / "sound" / f"{n:02}.wav", 6.0, 8000)


@pytest.mark.slow
def test_a_file_system_without_locks_and_syncs_of_folders(tmp_path: Path, stack: Stack) -> None:
    """The script as a whole: a run that is killed, one beside another that is refused, and one that ends."""
    _sounds(tmp_path, 8)
    environment = poor_file_system(tmp_path, locking_fails=errno.ENOLCK, folder_sync_fails=errno.EINVAL)
    command = [sys.executable, *script_command(stack, settings_of(tmp_path, num_workers=1), tmp_path / "training.json")]
    run = partial(subprocess.Popen, command, stdout=PIPE, stderr=PIPE, text=True, env=environment, cwd=REPOSITORY)
    first = run()
    while not (tmp_path / "store" / "store.json").exists():
        time.sleep(0.01)
        assert first.poll() is None, first.communicate()
    first.send_signal(signal.SIGSTOP)
    _, errors = run().communicate(timeout=120)
    assert "another run is writing there" in errors.splitlines()[-1]
    first.kill()
    first.communicate()
    last = run()
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert "Traceback" not in errors
    assert len(TokenStore(tmp_path / "store", stack.config)) == 8


def _whole(folder: Path) -> dict:
    """What an uninterrupted run makes of the same files."""
    preprocess(settings_of(folder, results_folder=str(folder / "whole" / "store")), 6.0)
    return content_of(folder / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_times_lose_nothing(tmp_path: Path) -> None:
    _sounds(tmp_path, 96)
    rng = random.Random(0)
    kept: dict = {}
    for kill in range(KILLS):
        process = start(settings_of(tmp_path, num_workers=kill % 3), pause=0.06)
        wanted = len(_shards(tmp_path)) + kill % 2  # every second one ends after it has stored something
        while len(_shards(tmp_path)) < wanted:
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        assert process.wait(timeout=120) == -signal.SIGKILL  # it was not done
        stored = content_of(tmp_path) if _shards(tmp_path) else {}
        assert {place: stored[place] for place in kept} == kept
        kept = stored
    assert len(kept) >= KILLS // 2
    assert preprocess(settings_of(tmp_path), 6.0).stored_before == len(kept)
    assert content_of(tmp_path) == _whole(tmp_path)
    assert not list((tmp_path / "store").glob(".*.arrow"))


def _shards(folder: Path) -> list[Path]:
    return list((folder / "store").glob("*.arrow"))


def test_a_worker_that_dies_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sounds(tmp_path, 24)
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "header_info", _killed_at_the_last_file)
        with pytest.raises(UserError, match=r"a data worker died .*lower data_preprocessor_cfg\.num_workers"):
            preprocess(settings_of(tmp_path, num_workers=2), 6.0, shard_bytes=1)
    before = len(content_of(tmp_path))
    assert 0 < before < 24
    assert preprocess(settings_of(tmp_path), 6.0).stored_before == before
    assert content_of(tmp_path) == _whole(tmp_path)


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError])
def test_a_worker_that_dies_while_it_hands_a_batch_over(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(loader: object) -> Iterator[object]:
        raise error
        yield

    _sounds(tmp_path, 2)
    monkeypatch.setattr(preprocessing_module, "batches_of", dying)
    with pytest.raises(UserError, match="a data worker died"):
        preprocess(settings_of(tmp_path, num_workers=1), 6.0)


def _killed_at_the_last_file(path: Path) -> SoundInfo:
    """As the kernel kills a worker that takes too much memory."""
    if path.name == "23.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    return header_info(path)


def test_files_that_disappear_are_listed_and_the_others_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sounds(tmp_path, 9)
    expected = _whole(tmp_path)
    found = find_sounds(tmp_path / "sound")
    monkeypatch.setattr("helpers.preprocessing.find_sounds", lambda folder: found)  # two of which are gone
    for gone in ("03.wav", "08.wav"):
        (tmp_path / "sound" / gone).unlink()
    report = preprocess(settings_of(tmp_path, num_workers=1), 6.0)
    assert (report.files, [failure.path.name for failure in report.failures]) == (7, ["03.wav", "08.wav"])
    assert all("No such file" in failure.reason for failure in report.failures)
    assert content_of(tmp_path) == {
        place: row for place, row in expected.items() if place[0] not in ("03.wav", "08.wav")
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB. Only root may have one."""
    disk = tmp_path / "store"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_leaves_whole_shards(tmp_path: Path, small_disk: Path) -> None:
    _sounds(tmp_path, 60)
    with pytest.raises(UserError, match=r"tokens-\d+-\d+-\d+\.arrow: cannot write: .*No space left"):
        preprocess(settings_of(tmp_path), 6.0, shard_bytes=1 << 14)
    before = len(content_of(tmp_path))
    assert 0 < before < 60
    assert not list(small_disk.glob(".*.arrow"))
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert preprocess(settings_of(tmp_path), 6.0).stored_before == before
    assert content_of(tmp_path) == _whole(tmp_path)
    assert len(TokenStore(small_disk, CONFIG)) == 60
