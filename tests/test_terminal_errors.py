"""What the system refuses, as one line with exit status 2, wherever in a script it happens."""

import subprocess
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from safetensors.torch import save_file

FAILING = """
import shutil, sys
from pathlib import Path
from open_musiclm import cli
def main(arguments):
    kind, folder = arguments.kind, Path(arguments.folder)
    if kind == "gone":
        (folder / "gone" / "a.txt").write_text("")
    elif kind == "file":
        (folder / "file" / "a.txt").read_text()
    elif kind == "copy":
        shutil.copytree(folder / "source", folder / "target")
    elif kind == "own":
        raise OSError("without a number")
    elif kind == "gpu":
        import torch
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\\nSee the documentation")
    elif kind == "memory":
        raise MemoryError
    elif kind == "tensor":
        import torch
        torch.empty(10**15)
    elif kind == "bug":
        raise RuntimeError("shapes differ")
parser = cli.parser("")
parser.add_argument("kind")
parser.add_argument("folder")
cli.run(main, parser)
"""
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""
HALVE = f"import runpy; runpy.run_path({str(REPOSITORY / 'demo' / 'halve_weights.py')!r}, run_name='__main__')"


def failing(kind: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return forks.run(["-c", FAILING, kind, folder])


@pytest.mark.parametrize(("kind", "reason"), [("gone", "No such file or directory"), ("file", "Not a directory")])
def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, kind: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    answer = failing(kind, tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == f"error: {tmp_path / kind / 'a.txt'}: {reason}\n"


def test_a_folder_that_cannot_be_copied_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").symlink_to("nowhere")
    answer = failing("copy", tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: {tmp_path}/source/a: {tmp_path}/target/a: ")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gpu", "CUDA out of memory. Tried to"), ("memory", "the main memory"), ("tensor", "[enforce fail at alloc_cpu")],
)
def test_too_little_memory_is_said_with_what_to_do(tmp_path: Path, kind: str, reason: str) -> None:
    answer = failing(kind, tmp_path)
    assert answer.returncode == 2
    error, advice = answer.stderr.splitlines()
    assert error.startswith(f"error: out of memory: {reason}")
    assert "--max_batch_size" in advice
    assert "grad_accum_every" in advice


@pytest.mark.parametrize("kind", ["own", "bug"])
def test_an_error_of_our_own_is_not_hidden(tmp_path: Path, kind: str) -> None:
    answer = failing(kind, tmp_path)
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr


@pytest.mark.parametrize("kind", ["full", "broken"])
def test_halved_weights_that_cannot_be_written_or_read_are_one_line(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    save_file({"a": torch.zeros(100000)}, source / "a.safetensors")
    if kind == "broken":
        (source / "a.safetensors").write_bytes(b"1234567890")
    limited = FULL_DISK if kind == "full" else ""
    answer = forks.run(["-c", limited + HALVE, source, target])
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert "a.safetensors" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
