"""The results folder of a run: refused when it holds something, complete in itself when it is written."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_musiclm.checkpoints import CHECKPOINTS_FOLDER, saved_steps
from open_musiclm.config import Section
from open_musiclm.errors import UserError
from open_musiclm.files import appearing_whole, write_json
from open_musiclm.output import versions
from open_musiclm.training.checkpointing import BEST_NAME, remove_checkpoint, remove_unfinished

LOG_NAME = "log.jsonl"
SAMPLES_FOLDER = "samples"
TRACKER_FOLDER = "tracker"
FAILURES_NAME = "failed_sounds.txt"
_CONFIGS = ("model_config.json", "training_config.json", "run.json")
# All that a run writes: what starting anew removes, and nothing else.
_WRITTEN = (CHECKPOINTS_FOLDER, SAMPLES_FOLDER, TRACKER_FOLDER, LOG_NAME, FAILURES_NAME, *_CONFIGS)


def begin_anew(folder: Path, overwrite: bool, results: tuple[str, ...] = ()) -> None:
    """Makes `folder` fit for a new run: it is empty, or with `overwrite` loses what a run writes.

    `results` are further files of this kind of run. Raises UserError where the folder holds anything.
    """
    if _holds_something(folder):
        if not overwrite:
            raise UserError(
                f"--results_folder {folder}: not empty; choose another, start anew with --overwrite, or go on with "
                f"--continue_from_dir {folder}"
            )
        for name in (*_WRITTEN, *results):
            _remove(folder / name)
    _make(folder)


def go_on_in(folder: Path, step: int, overwrite: bool) -> None:
    """Makes `folder` fit for going on in it after `step`: what came later in it must not stand beside what comes now.

    Raises UserError where it holds later checkpoints; with `overwrite` they are removed.
    """
    remove_unfinished(folder)
    later = [saved for saved in saved_steps(folder) if saved > step]
    if later and not overwrite:
        raise UserError(
            f"--results_folder {folder}: holds later checkpoints (up to step {later[-1]}); choose another folder, "
            "or remove them with --overwrite"
        )
    for saved in later:
        remove_checkpoint(folder, saved)
    best = folder / CHECKPOINTS_FOLDER / BEST_NAME
    if best.exists() and json.loads(best.read_text(encoding="utf-8"))["step"] > step:
        best.unlink()
    _forget_lines_after(folder / LOG_NAME, step)


def describe(folder: Path, model_config: Section, training_config: Section, facts: Mapping[str, Any]) -> None:
    """Writes both configs, and run.json: `facts`, versions, command line, commit. Raises UserError.

    run.json keeps every start of a run that was interrupted, the newest last.
    """
    write_json(folder / "model_config.json", model_config.model_dump(mode="json"))
    write_json(folder / "training_config.json", training_config.model_dump(mode="json"))
    start = {**facts, "command": command_line(), "versions": versions(), "commit": _commit()}
    write_json(folder / "run.json", {"starts": [*_earlier_starts(folder / "run.json"), start]})


def command_line() -> str:
    """The command that runs, as one would type it."""
    return shlex.join(["python", *sys.argv])


def _earlier_starts(path: Path) -> list[Any]:
    return json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []


def _commit() -> str | None:
    """The commit of the sources, None where they are no git checkout."""
    sources = Path(__file__).parent
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=sources, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def _forget_lines_after(path: Path, step: int) -> None:
    """Drops the log lines of steps that are made again, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with appearing_whole(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")


def _holds_something(folder: Path) -> bool:
    try:
        return folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise UserError(f"--results_folder {folder}: cannot use it: {error.strerror}") from error


def _make(folder: Path) -> None:
    """Makes the folder and finds out now, not after hours, whether it can be written to."""
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--results_folder {folder}: cannot write there: {error.strerror}") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
