"""The results folder of a run: checks before it is used, and the files that describe the run."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from open_musiclm.checkpoints import CHECKPOINTS_FOLDER, saved_steps
from open_musiclm.config import ModelConfig
from open_musiclm.config.json_files import Section, parse_json, read_json
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write, write_json
from open_musiclm.generation.output import versions
from open_musiclm.training.checkpointing import BEST_NAME, remove_checkpoint, remove_unfinished

LOG_NAME = "log.jsonl"
SAMPLES_FOLDER = "samples"
TRACKER_FOLDER = "tracker"
FAILURES_NAME = "failed_sounds.txt"
STATISTICS_NAME = "wave_statistics.sqlite"
_BACKBONES = (
    ("clap_rvq_cfg", "model_name"),
    ("clap_rvq_cfg", "checkpoint_path"),
    ("hubert_kmeans_cfg", "model_name"),
    ("encodec_cfg", "model_name"),
)
_CONFIGS = ("model_config.json", "training_config.json", "run.json")
# What starting anew removes: all that a run writes, and nothing else.
_WRITTEN = (CHECKPOINTS_FOLDER, SAMPLES_FOLDER, TRACKER_FOLDER, LOG_NAME, FAILURES_NAME, STATISTICS_NAME, *_CONFIGS)


def check_new(folder: Path, overwrite: bool) -> None:
    """Raises UserError where `folder` holds anything, unless `overwrite`, or cannot be written to."""
    if _holds_something(folder) and not overwrite:
        raise UserError(
            f"--results_folder {folder}: not empty; choose another, start anew with --overwrite, or go on with what "
            "is there (--continue_from_dir where the script has it)"
        )
    _check_writable(folder)


def clear(folder: Path, products: Iterable[str]) -> None:
    """Removes what an earlier run wrote, `products` included; files of any other name stay."""
    for name in (*_WRITTEN, *products):
        _remove(folder / name)


def check_going_on(folder: Path, step: int, overwrite: bool) -> None:
    """Raises UserError where `folder` holds checkpoints later than `step`, unless `overwrite`, or is not writable."""
    later = [saved for saved in saved_steps(folder) if saved > step]
    if later and not overwrite:
        raise UserError(
            f"--results_folder {folder}: holds later checkpoints (up to step {later[-1]}); choose another folder, "
            "or remove them with --overwrite"
        )
    _check_writable(folder)


def forget_after(folder: Path, step: int) -> None:
    """Removes what came after `step`, and what a killed run left half done."""
    remove_unfinished(folder)
    for saved in saved_steps(folder):
        if saved > step:
            remove_checkpoint(folder, saved)
    best = folder / CHECKPOINTS_FOLDER / BEST_NAME
    if best.exists() and read_json(best)["step"] > step:
        best.unlink()
    _forget_lines_after(folder / LOG_NAME, step)


def describe(folder: Path, model_config: Section, training_config: Section, facts: Mapping[str, Any]) -> None:
    """Writes both configs, and run.json: `facts`, versions, command line, commit. Raises UserError.

    run.json keeps every start of a run that was interrupted, the newest last.
    """
    write_json(folder / "model_config.json", _with_full_paths(model_config))
    write_json(folder / "training_config.json", training_config.model_dump(mode="json"))
    start = {**facts, "command": shlex.join(command_line()), "versions": versions(), "commit": _commit()}
    write_json(folder / "run.json", {"starts": [*_earlier_starts(folder / "run.json"), start]})


def command_line() -> list[str]:
    """The words of the command that runs, as one would type it."""
    launcher = ["accelerate", "launch"] if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ["python"]
    return [*launcher, *sys.argv]


def _with_full_paths(config: Section) -> dict[str, Any]:
    """A config as JSON; in a model config, local backbones by their full paths."""
    content = config.model_dump(mode="json")
    if isinstance(config, ModelConfig):
        for section, key in _BACKBONES:
            if content[section][key] is not None:
                content[section][key] = config.backbone(content[section][key])
    return content


def _earlier_starts(path: Path) -> list[Any]:
    return read_json(path)["starts"] if path.exists() else []


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
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return parse_json(line, LOG_NAME)["step"]
    except UserError:
        return float("inf")


def _holds_something(folder: Path) -> bool:
    try:
        return folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise UserError(f"--results_folder {folder}: cannot use it: {error.strerror}") from error


def _check_writable(folder: Path) -> None:
    """Makes the folder. Raises UserError where it cannot be written to."""
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
