"""Signals to real process trees: a shell script or make stops where the training that it runs was stopped."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.paths import DEMO, REPOSITORY

from open_musiclm.checkpoints import saved_steps

# What a script is here: one that makes a checkpoint and waits for a signal as training does, or a trace of having been
# run. What a real training does at a signal is in test_resume.
TRAINING = f"""
import sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from open_musiclm import cli
from open_musiclm.interruption import Interruption

def main(arguments):
    with Interruption() as interruption:
        (arguments.results_folder / "checkpoints" / "step_00000005").mkdir(parents=True)
        while not interruption.requested:
            time.sleep(0.01)
        cli.print_stdout("resume with: python")
        interruption.end()

parser = cli.parser("")
cli.add_run_arguments(parser)
for option in ("--config", "--model_config", "--training_config"):
    parser.add_argument(option)
cli.run(main, parser)
"""
TRACE = "from pathlib import Path\nPath(__file__).with_suffix('.reached').touch()\n"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A repository whose scripts are stand-ins, with a virtual environment that counts as installed."""
    for folder in ("scripts", "demo"):
        (tmp_path / folder).mkdir()
    for name in ("train_spectral_codec", "train_clap_rvq"):
        (tmp_path / "scripts" / f"{name}.py").write_text(TRAINING)
    (tmp_path / "demo" / "halve_weights.py").write_text(TRACE)
    (tmp_path / "scripts" / "train_hubert_kmeans.py").write_text(TRACE)
    for name in ("scripts/make_demo_corpus.py", "demo/training_configs.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for name in ("setup.py", "constraints.txt", "demo/configs/model.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for number, stamp in enumerate(("venv/installed", "venv/rendering", "results/corpus/done")):
        (tmp_path / stamp).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stamp).touch()
        os.utime(tmp_path / stamp, (2e9 + number, 2e9 + number))
    return tmp_path


def stopped(command: list[str], workplace: Path, results: Path, number: int, whole_group: bool) -> tuple[int, str]:
    """Runs a chain until its training has made a checkpoint, sends a signal to its process group, or to the training
    alone, and waits for all its processes; returns the chain's exit status as a shell has it, and what was printed."""
    process = subprocess.Popen(
        command,
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "MAKEFLAGS": ""},
    )
    try:
        deadline = time.monotonic() + 120
        while not saved_steps(results):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if whole_group:
            os.killpg(process.pid, number)
        else:
            os.kill(training_of(process.pid), number)
        output, _ = process.communicate(timeout=120)  # when the last of them has closed its output
    finally:
        with_group_ended(process)
    return (128 - process.returncode if process.returncode < 0 else process.returncode), output


def training_of(session: int) -> int:
    """The process of a session that trains: the one that holds the results folder's lock."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[3]) == session and b"train_" in words and b"train.sh" not in words and b"make" not in words:
            return int(entry.name)
    raise AssertionError("nothing trains")


def with_group_ended(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


CASES = [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False), (signal.SIGHUP, False)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "whole_group"), CASES)
def test_the_demos_training_script_stops(workplace: Path, number: int, whole_group: bool) -> None:
    folder = workplace / "results" / "demo_model" / "spectral_codec"
    status, output = stopped(["sh", str(DEMO / "train.sh")], workplace, folder, number, whole_group)
    assert status == 128 + number, output
    assert "resume with: " in output
    assert not (folder / "done").exists()
    assert not list(workplace.rglob("*.reached"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("number", "whole_group"), CASES)
def test_make_stops(workplace: Path, number: int, whole_group: bool) -> None:
    folder = workplace / "results" / "clap_rvq"
    make = ["make", "-f", str(REPOSITORY / "Makefile"), "VENV=venv", "DEMO=results", "results/hubert_kmeans/done"]
    status, output = stopped(make, workplace, folder, number, whole_group)
    assert status != 0, output
    assert "resume with: " in output
    assert not (folder / "done").exists()
    assert not list(workplace.rglob("*.reached"))
