"""What a person sees of training: a bar on a terminal, lines every so often in a file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from helpers import forks

SCRIPT = Path(__file__).parent / "helpers" / "small_training.py"
STEPS = 12


def command(folder: Path, *words: str) -> list[str]:
    return [str(SCRIPT), "--results_folder", str(folder / "run"), "--steps", str(STEPS), *words]


@pytest.mark.slow
def test_training_on_a_terminal_shows_a_bar_that_moves(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # a new one has no size
    process = forks.Fork(command(tmp_path, "--slow_seconds", "0.02"), stderr=end, stdout=end)
    os.close(end)
    shown = b""
    try:
        while piece := _read(terminal):
            shown += piece
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        os.close(terminal)
    text = shown.decode()
    counts = [int(count) for count in re.findall(rf"semantic: .*?(\d+)/{STEPS} \[", text)]
    assert counts[0] == 0
    assert counts[-1] == STEPS
    assert len(set(counts)) > 2  # it moved on the way
    assert re.search(rf"\rsemantic: +\d+%\|.*/{STEPS} \[.*loss [\d.]+", text)
    assert not re.search(r"semantic: step \d+/\d+: loss", text)  # the bar says that
    assert re.search(rf"semantic: step 10/{STEPS}: validation loss [\d.]+", text)


@pytest.mark.slow
def test_training_into_a_file_writes_lines_every_so_often(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        words = command(tmp_path, "--slow_seconds", "0.03", "--seconds_between_lines", "0.5")
        assert forks.Fork(words, stderr=subprocess.STDOUT, stdout=file).wait(timeout=60) == 0
    text = output.read_text()
    assert "\r" not in text
    assert "%|" not in text
    steps = [int(step) for step in re.findall(rf"^semantic: step (\d+)/{STEPS}: loss", text, re.MULTILINE)]
    assert steps[0] == 1
    assert steps[-1] == STEPS
    assert 3 <= len(steps) < STEPS  # every so often, not every step
    last = text[text.rindex(f"step {STEPS}/{STEPS}: loss") :].splitlines()[0]
    for number in ("learning rate", "gradient norm", "tokens per second", "data wait share", "memory gb"):
        assert number in last
    assert re.search(r"seconds to end \d+:\d\d:\d\d", last)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""
