"""A generation script that is ended from outside: what is done is there, what is not is told."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

MANY = 1000  # prompts, of which the first is written while the others are still to be made


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii"}


def command(stack: Stack, name: str, folder: Path, *words: str) -> list[str]:
    parts = [str(REPOSITORY / "scripts" / name), *stack.arguments(), "--device", "cpu"]
    return [*parts, "--results_folder", str(folder), "--duration", "1", "--max_batch_size", "1", *words]


def script(stack: Stack, name: str, folder: Path, *words: str) -> forks.Fork:
    return forks.Fork(command(stack, name, folder, *words), env=ENVIRONMENT)


def prompts_file(tmp_path: Path, count: int) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"tune\u2028{number}" for number in range(count)), encoding="utf-8-sig")
    return path


def assert_whole(folder: Path) -> int:
    """How many waves there are, all of them whole and beside their JSON, and nothing else."""
    found = list(folder.glob("*.wav"))
    assert all(soundfile.info(path).frames == 24000 for path in found)
    assert all(path.with_suffix(".json").exists() for path in found)
    assert len(list(folder.iterdir())) - len(found) - len(list(folder.glob("*.json"))) == 0
    return len(found)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_keeps_what_is_done(stack: Stack, tmp_path: Path, number: signal.Signals, status: int) -> None:
    folder = tmp_path / "results"
    process = script(stack, "infer.py", folder, "--prompts_file", str(prompts_file(tmp_path, MANY)))
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status
    told = [line for line in errors.splitlines() if "not finished" in line]
    done = 1 + output.count("similarity")
    assert told == [f"not finished: {done} of {MANY} are written, in {folder}"]
    assert "Traceback" not in errors
    assert first.startswith("similarity")
    assert done <= assert_whole(folder) <= done + 1


@pytest.mark.slow
def test_a_closed_pipe_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    process = script(stack, "infer.py", folder, "--prompts_file", str(prompts_file(tmp_path, 4)))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert assert_whole(folder) == 4


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_done(stack: Stack, tmp_path: Path) -> None:
    folder, blocked = tmp_path / "results", "x" * 3
    process = script(stack, "infer_top_match.py", folder, "a", blocked, "--num_samples", "1", "--num_top_matches", "1")
    assert process.stdout is not None
    folder.mkdir(exist_ok=True)
    (folder / f"{blocked}_seed0_1.wav").mkdir()  # stands for what cannot be written
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.startswith("'a':")
    *_, told, error = errors.splitlines()
    assert told == f"not finished: 1 of 2 are written, in {folder}"
    assert error.startswith(f"error: {folder}/{blocked}_seed0_1.wav: cannot write")
    assert "Traceback" not in errors


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "empty", "latin-1"])
def test_what_is_no_prompt_file_is_refused_at_once(stack: Stack, tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "prompts"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "device":
        path.write_bytes({"empty": b"\xef\xbb\xbf \n\n", "latin-1": b"caf\xe9"}[kind])
    words = [sys.executable, *command(stack, "infer.py", tmp_path / "results", "--prompts_file", str(path))]
    ended = subprocess.run(
        words, env=ENVIRONMENT, preexec_fn=_little_memory, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: --prompts_file {path}:")
    assert len(ended.stderr.splitlines()) == 1


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
