"""What is told at the terminal, under any encoding, into a closed pipe and onto a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TELLING = """
import os, sys
from open_musiclm import terminal
odd = os.fsdecode(bytes([255]))
terminal.escape_what_cannot_be_encoded()
if "wait" in sys.argv:
    sys.stdin.read()
for number in range(3):
    terminal.print_stdout(f"{number}: caf\u00e9 \ub290\ub9b0 {odd}")
    terminal.print_stderr(f"error {number}: \u266b")
terminal.end_output()
with open(os.environ["DONE"], "w") as file:
    file.write("done")
"""


def telling(tmp_path: Path, *words: str, encoding: str | None = None, **streams) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "DONE": str(tmp_path / "done")}
    environment.pop("PYTHONIOENCODING", None)
    if encoding:
        environment["PYTHONIOENCODING"] = encoding
    return subprocess.Popen([sys.executable, "-c", TELLING, *words], env=environment, **streams)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_what_the_encoding_lacks_is_escaped(tmp_path: Path, encoding: str) -> None:
    process = telling(tmp_path, encoding=encoding, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = output.decode(encoding).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("0: caf")
    assert lines[0].endswith("\\udcff")
    assert errors.decode(encoding).splitlines()[2].startswith("error 2: ")


def test_a_closed_pipe_ends_nothing(tmp_path: Path) -> None:
    process = telling(tmp_path, "wait", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stderr.close()
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = telling(tmp_path, stdout=full, stderr=full)
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "done").exists()


def test_closed_streams_end_nothing(tmp_path: Path) -> None:
    command = f'exec {sys.executable} -c "$0" >&- 2>&-'
    subprocess.run(["bash", "-c", command, TELLING], env={**os.environ, "DONE": str(tmp_path / "done")}, check=True)
    assert (tmp_path / "done").exists()
