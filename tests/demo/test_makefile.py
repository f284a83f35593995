"""Recipes of the Makefile get the prompt exactly as it was typed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import REPOSITORY

PROMPTS = [
    "slow piano",
    "a \"quoted\" tune, 'twice'",
    "`touch ran` $(shell touch ran) $(touch ran) $HOME ${HOME} $x $$",
    "100% free; rm * & > out | # \\",
]
MAKE = shutil.which("make") or "make"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment that counts as installed, and whose Python prints its arguments, each on a line."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!{sys.executable}\nimport sys\nprint("\\n".join(sys.argv[1:]))\n')
    python.chmod(0o755)
    for stamp in ("installed", "rendering"):
        (tmp_path / stamp).touch()
    return tmp_path


def run_make(*arguments: str, prompt: str | None = None) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PROMPT")}
    done = subprocess.run(
        [MAKE, "--silent", *arguments], cwd=REPOSITORY, capture_output=True, text=True,
        env=environment if prompt is None else {**environment, "PROMPT": prompt},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_reaches_the_demo_as_it_was_typed(venv: Path, prompt: str) -> None:
    results = str(venv / "results")
    for arguments in (
        run_make("demo", f"VENV={venv}", f"DEMO={results}", f"PROMPT={prompt}"),
        run_make("demo", f"VENV={venv}", f"DEMO={results}", prompt=prompt),
    ):
        assert arguments[:2] == ["demo/generate.py", prompt]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_reaches_the_trained_demo_as_it_was_typed(venv: Path, prompt: str) -> None:
    """With everything trained already."""
    results = venv / "results"
    steps = ("corpus", "clap_rvq", "hubert_kmeans", "tokens", "semantic", "coarse")
    for number, step in enumerate(steps):
        (results / step).mkdir(parents=True)
        (results / step / "done").touch()
        os.utime(results / step / "done", (2e9 + number, 2e9 + number))  # in order, after the configs
    arguments = run_make("train-demo", f"VENV={venv}", f"DEMO={results}", f"PROMPT={prompt}")
    assert arguments[:2] == ["scripts/infer_top_match.py", prompt]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_without_a_prompt_there_is_one(venv: Path) -> None:
    arguments = run_make("demo", f"VENV={venv}", f"DEMO={venv / 'results'}")
    assert arguments[1] == "slow and gentle piano in a major key"
