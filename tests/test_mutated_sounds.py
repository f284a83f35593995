"""Sound files with wrong headers, 500 of each format: each is used or named, without a crash, a hang or a flood."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.mutated_sounds import FORMATS

ROOT = Path(__file__).resolve().parents[1]
FILES = 500


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_file_is_used_or_named(suffix: str) -> None:
    """In a process of its own: a crash in the library must not look like anything else."""
    command = [sys.executable, "-m", "helpers.mutated_sounds", suffix, "0", str(FILES)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # neither tracebacks nor libmpg123's warnings
    assert f"of {FILES} used" in done.stdout
