"""Sound files with wrong headers: each is used or named, without a crash, a hang or a flood.

By hand, more of each format: MUTATED_SOUNDS=5000 pytest tests/test_mutated_sounds.py
"""

import os

import pytest
from helpers import forks
from helpers.mutated_sounds import FORMATS
from helpers.paths import REPOSITORY

FILES = int(os.environ.get("MUTATED_SOUNDS", "200"))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_file_is_used_or_named(suffix: str) -> None:
    """In a process of its own: a crash in the library must not look like anything else."""
    done = forks.run([REPOSITORY / "tests/helpers/mutated_sounds.py", suffix, 0, FILES])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # neither tracebacks nor libmpg123's warnings
    assert f"of {FILES} used" in done.stdout
