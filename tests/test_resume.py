"""Runs as real processes that are killed or asked to stop: what goes on equals what was never interrupted."""

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import forks

from open_musiclm.checkpoints import saved_steps

SCRIPT = Path(__file__).parent / "helpers" / "small_training.py"
STEPS = 30


def command(folder: Path, *arguments: str) -> list[str]:
    return [str(SCRIPT), "--results_folder", str(folder), "--steps", str(STEPS), *arguments]


def start(folder: Path, *arguments: str) -> forks.Fork:
    return forks.Fork(command(folder, *arguments), stderr=subprocess.STDOUT)


def finish(process: forks.Fork, status: int = 0) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    return output


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every whole line of the log."""
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    numbers = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(line["step"], line["loss"]) for line in numbers if "loss" in line]


def wait_for_step(folder: Path, step: int, process: forks.Fork) -> None:
    deadline = time.monotonic() + 90
    while not ((folder / "log.jsonl").exists() and losses(folder) and losses(folder)[-1][0] >= step):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(start(folder))
    assert len(losses(folder)) == STEPS
    return losses(folder)


@pytest.mark.slow
def test_killed_at_random_moments_goes_on_exactly(tmp_path: Path, uninterrupted: list[tuple[int, float]]) -> None:
    folder = tmp_path / "run"
    rng = random.Random()
    first = rng.randint(6, 14)
    process = start(folder, "--slow_seconds", "0.01")
    wait_for_step(folder, first, process)
    time.sleep(rng.uniform(0, 0.2))
    process.kill()
    process.communicate()
    for kills_left in (1, 0):
        resumed = start(folder, "--slow_seconds", "0.01", "--workers", "2", "--continue_from_dir", str(folder))
        if kills_left:
            wait_for_step(folder, saved_steps(folder)[-1] + rng.randint(1, 6), resumed)
            resumed.kill()
            resumed.communicate()
        else:
            finish(resumed)
    assert losses(folder) == uninterrupted
    assert not list((folder / "checkpoints").glob(".unfinished*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_saves_and_says_how_to_go_on(
    tmp_path: Path, uninterrupted: list[tuple[int, float]], number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    process = start(folder, "--slow_seconds", "0.01", "--workers", "2")
    wait_for_step(folder, 7, process)
    process.send_signal(number)
    output = finish(process, status=128 + number)
    stopped_at = losses(folder)[-1][0]
    assert saved_steps(folder)[-1] == stopped_at < STEPS
    again = output.splitlines()[-1].split("resume with: python ")[1]
    assert f"--continue_from_dir {folder}" in again
    finish(forks.Fork(again.split()))
    assert losses(folder) == uninterrupted


@pytest.mark.slow
def test_a_terminal_that_is_closed_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, *command(folder, "--slow_seconds", "0.02")])
    deadline = time.monotonic() + 90
    while not ((folder / "log.jsonl").exists() and losses(folder) and losses(folder)[-1][0] >= 7):
        assert time.monotonic() < deadline
        if select.select([terminal], [], [], 0.01)[0]:
            os.read(terminal, 1 << 16)  # a bar that nobody reads would stop the run
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert saved_steps(folder)[-1] == losses(folder)[-1][0] < STEPS


@pytest.mark.slow
def test_a_reader_that_ends_first_loses_nothing(tmp_path: Path) -> None:
    """As `tee` does, which Ctrl-C reaches too."""
    folder = tmp_path / "run"
    process = start(folder, "--slow_seconds", "0.02", "--seconds_between_lines", "0")
    wait_for_step(folder, 7, process)
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    assert saved_steps(folder)[-1] == losses(folder)[-1][0] < STEPS


@pytest.mark.slow
def test_equal_runs_write_equal_files(tmp_path: Path) -> None:
    """However often a run was interrupted, and whatever the order of a dictionary in its process."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    subprocess.run([sys.executable, *command(whole)], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    process = start(resumed, "--slow_seconds", "0.01")
    wait_for_step(resumed, 7, process)
    process.kill()
    process.communicate()
    finish(start(resumed, "--continue_from_dir", str(resumed)))
    names = ("checkpoints", "samples")
    files = [file.relative_to(whole) for name in names for file in (whole / name).rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".pt", ".json"}
    assert [file for file in files if (whole / file).read_bytes() != (resumed / file).read_bytes()] == []
