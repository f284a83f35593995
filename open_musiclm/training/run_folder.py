"""The results folder of a run: checks before it is used, and the files that describe the run."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from open_musiclm.checkpoints import CHECKPOINTS_FOLDER, saved_steps
from open_musiclm.config import BACKBONES, ModelConfig
from open_musiclm.config.json_files import Section, load_section
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write, write_json
from open_musiclm.locking import LOCK_NAME, FolderLock
from open_musiclm.training.checkpointing import BEST_NAME, Best, remove_checkpoint, remove_unfinished
from open_musiclm.versions import versions

LOG_NAME = "log.jsonl"
SAMPLES_FOLDER = "samples"
TRACKER_FOLDER = "tracker"
FAILURES_NAME = "failed_sounds.txt"
STATISTICS_NAME = "wave_statistics.sqlite"
RUN_NAME = "run.json"
_CONFIGS = ("model_config.json", "training_config.json", RUN_NAME)
# What --overwrite removes: all files that a run writes, and no others.
_WRITTEN = (CHECKPOINTS_FOLDER, SAMPLES_FOLDER, TRACKER_FOLDER, LOG_NAME, FAILURES_NAME, STATISTICS_NAME, *_CONFIGS)
# What a killed start may leave; these files do not make a folder count as used.
_LEFTOVERS = (LOCK_NAME, STATISTICS_NAME, f"{STATISTICS_NAME}-journal")
_OPTION = "--results_folder "


class FolderClaim:
    """The results folder of a run that is about to start: checked, and locked until `release`.

    `step` is the step that the run resumes from in this same folder, None for any other run. Raises UserError if the
    folder has files that the run may not replace, or another run writes there.
    """

    def __init__(self, folder: Path, step: int | None, overwrite: bool, outputs: Iterable[str] = ()) -> None:
        self.folder, self.step = folder, step
        self._outputs = tuple(outputs)
        self._replaced = (*_WRITTEN, *self._outputs)
        self._begun = False
        self._lock = FolderLock(folder, called=_OPTION)
        try:
            self._before = frozenset(os.listdir(folder))
            if step is None:
                self._check_new(overwrite)
            else:
                self._check_resumable(step, overwrite)
        except BaseException:
            self.release()
            raise

    def begin(self) -> None:
        """Removes the files of an earlier run, or those after `step`; files of other names stay."""
        self._begun = True
        if self.step is not None:
            _remove_after(self.folder, self.step)
            for name in self._outputs:
                _remove(self.folder / name)
            return
        for name in self._replaced:
            _remove(self.folder / name)

    def release(self) -> None:
        """Releases the folder, unchanged if the run did not start."""
        if not self._begun:
            for name in _LEFTOVERS:
                if name != LOCK_NAME and name not in self._before:
                    (self.folder / name).unlink(missing_ok=True)
        self._lock.release()

    def _check_new(self, overwrite: bool) -> None:
        held = self._before - set(_LEFTOVERS)
        if held and not overwrite:
            raise UserError(
                f"{_OPTION}{self.folder}: not empty; choose another, start over with --overwrite, or resume the "
                "run there (--continue_from_dir, if the script has it)"
            )
        removed = sorted(held.intersection(self._replaced))
        if removed and not _was_run(self.folder):
            raise UserError(
                f"{_OPTION}{self.folder}: --overwrite clears only the folder of a run, and this one has no {RUN_NAME} "
                f"of a run; choose another, or remove {', '.join(removed)} there yourself"
            )

    def _check_resumable(self, step: int, overwrite: bool) -> None:
        later = [saved for saved in saved_steps(self.folder) if saved > step]
        if later and not overwrite:
            raise UserError(
                f"{_OPTION}{self.folder}: holds later checkpoints (up to step {later[-1]}); choose another folder, "
                "or remove them with --overwrite"
            )
        _earlier_starts(self.folder / RUN_NAME)
        _log_lines(self.folder / LOG_NAME)


def _remove_after(folder: Path, step: int) -> None:
    """Removes what was written after `step`, and unfinished files of a killed run."""
    remove_unfinished(folder)
    for saved in saved_steps(folder):
        if saved > step:
            remove_checkpoint(folder, saved)
    for samples in (folder / SAMPLES_FOLDER).glob("step_*"):
        if samples.name.removeprefix("step_").isdecimal() and int(samples.name.removeprefix("step_")) > step:
            _remove(samples)
    best = folder / CHECKPOINTS_FOLDER / BEST_NAME
    if not 0 < _best_step(best) <= step:  # the next checkpoint writes it again
        _remove(best)
    _remove_lines_after(folder / LOG_NAME, step)


def describe(folder: Path, model_config: Section, training_config: Section, facts: Mapping[str, Any]) -> None:
    """Writes both configs, and run.json: `facts`, versions, command line, commit. Raises UserError.

    run.json keeps every start of a run that was interrupted, the newest last.
    """
    start = {**facts, "command": shlex.join(command_line()), "versions": versions(), "commit": _commit()}
    write_json(
        folder / RUN_NAME, {"starts": [*_earlier_starts(folder / RUN_NAME), start]}
    )  # first: it marks the folder as one of a run
    write_json(folder / "model_config.json", _with_full_paths(model_config))
    write_json(folder / "training_config.json", training_config.model_dump(mode="json"))


def command_line() -> list[str]:
    """The words of the running command; a launcher's are made from what it tells its processes."""
    return [*_launcher(os.environ), *sys.argv]


def _launcher(environment: Mapping[str, str]) -> list[str]:
    processes, machines = environment.get("WORLD_SIZE", "1"), environment.get("GROUP_WORLD_SIZE", "1")
    if processes == "1":
        return ["python"]
    words = ["accelerate", "launch"]
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        words += ["--use_fsdp", "--fsdp_version", environment.get("FSDP_VERSION", "2")]
    else:
        words += ["--multi_gpu"]
    words += ["--num_processes", processes]
    if machines == "1":
        return words
    address = ["--main_process_ip", environment.get("MASTER_ADDR", "")]
    address += ["--main_process_port", environment.get("MASTER_PORT", "")]
    return [*words, "--num_machines", machines, "--machine_rank", environment.get("GROUP_RANK", "0"), *address]


def _with_full_paths(config: Section) -> dict[str, Any]:
    """A config as JSON; in a model config, local backbones by their full paths."""
    content = config.model_dump(mode="json")
    if isinstance(config, ModelConfig):
        for section, key in BACKBONES.values():
            if content[section][key] is not None:
                content[section][key] = config.backbone(content[section][key])
    return content


def _earlier_starts(path: Path) -> list[Any]:
    """The starts that run.json lists, none if there is no such file. Raises UserError."""
    if not path.exists():
        return []
    try:
        return load_section(path, _Starts).starts
    except UserError as error:
        raise UserError(f"{error}; remove this file and run the same command again") from error


class _Starts(Section):
    """The content of run.json."""

    starts: list[dict[str, Any]]


def _was_run(folder: Path) -> bool:
    """Whether a folder says that it is the results folder of a run."""
    try:
        return bool(_earlier_starts(folder / RUN_NAME))
    except UserError:
        return False


def _best_step(path: Path) -> int:
    """The step that best.json names, 0 if it is absent or damaged."""
    try:
        return load_section(path, Best).step
    except UserError:
        return 0


def _commit() -> str | None:
    """The commit of the sources, None if they are no git checkout."""
    sources = Path(__file__).parent
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=sources, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def _log_lines(path: Path) -> list[bytes]:
    """The lines of the log, none if there is no such file. Raises UserError."""
    try:
        return path.read_bytes().splitlines() if path.is_file() or path.is_dir() else []
    except OSError as error:
        raise UserError(f"{path}: cannot read this log: {error.strerror}; remove it and try again") from error


def _remove_lines_after(path: Path, step: int) -> None:
    """Drops the log lines after `step`, a truncated last line, and lines that are not valid."""
    kept = [line for line in _log_lines(path) if _step_of(line) <= step]
    if path.exists():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def _step_of(line: bytes) -> float:
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
