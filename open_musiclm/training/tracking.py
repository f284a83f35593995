"""Reports of a run: a bar or lines on the terminal, a line per step in log.jsonl, curves in a tracker."""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import soundfile
import torch
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, WandBTracker
from tqdm import tqdm

from open_musiclm.errors import UserError, first_line
from open_musiclm.progress_bar import SECONDS_BETWEEN_LINES
from open_musiclm.terminal import print_stderr
from open_musiclm.training.run_folder import LOG_NAME


class RunLog:
    """The log of one run; processes other than the main one stay silent.

    A full disk does not end a run: log lines wait for space, curves are dropped, and both are reported once.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, name: str, step: int, steps: int) -> None:
        self.accelerator = accelerator
        self.name = name
        self.first_step, self.steps = step, steps
        self.started = time.monotonic()
        self._last_line = -math.inf
        self._file = (folder / LOG_NAME).open("ab", buffering=0) if accelerator.is_main_process else None
        self._unwritten = b""
        self._warned: set[str] = set()
        terminal = sys.stderr.isatty() and accelerator.is_main_process
        self._bar = tqdm(total=steps, initial=step, desc=name, unit="step", disable=not terminal)

    def close(self) -> None:
        """Ends the bar, the file and the trackers."""
        self._bar.close()
        with self._warning_once("the curves"):
            for tracker in self.accelerator.trackers:
                tracker.finish()
        if self._file is not None:
            self._file.close()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers after `step` steps."""
        left = (time.monotonic() - self.started) / (step - self.first_step) * (self.steps - step)
        values = {**values, "seconds_to_end": left}
        self._write(step, values)
        self._track(step, values)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix_str(_sentence(values))
        if self._bar.disable and (time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES or step == self.steps):
            self._last_line = time.monotonic()
            self.print(f"step {step}/{self.steps}: {_sentence(values)}")

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a validation."""
        self._measured(step, {f"validation_{name}": value for name, value in values.items()})

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of what was generated."""
        self._measured(step, {f"generated_{name}": value for name, value in values.items()})

    def waves(self, step: int, paths: list[Path]) -> None:
        """Puts waves into the tracker."""
        with self._warning_once("the curves"):
            for tracker in self.accelerator.trackers:
                for path in paths:
                    samples, sample_hz = soundfile.read(path, dtype="float32")
                    if isinstance(tracker, TensorBoardTracker):
                        tracker.writer.add_audio(path.stem, torch.from_numpy(samples), step, sample_hz)
                    elif isinstance(tracker, WandBTracker):
                        import wandb

                        tracker.log({path.stem: wandb.Audio(samples, sample_rate=sample_hz)}, step=step)

    def print(self, line: str) -> None:
        """A line for the person at the terminal."""
        if self.accelerator.is_main_process:
            print_stderr(f"{self.name}: {line}")

    def warn_once(self, what: str, error: Exception) -> None:
        """Reports once that `what` cannot be written."""
        if what not in self._warned:
            self._warned.add(what)
            reason = str(getattr(error, "strerror", None) or error)
            self.print(f"cannot write {what}, continues without: {reason}")

    @contextmanager
    def _warning_once(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.warn_once(what, error)

    def _measured(self, step: int, named: Mapping[str, float]) -> None:
        self._write(step, named)
        self._track(step, named)
        self.print(f"step {step}/{self.steps}: {_sentence(named)}")

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        with self._warning_once("the curves"):
            self.accelerator.log(values, step=step)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._file is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._unwritten += json.dumps({"step": step, **finite}).encode() + b"\n"
        with self._warning_once(f"to {self._file.name}"):
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) or 0 :]


def check_tracker(log_with: str) -> None:
    """Raises UserError if the tracker is not installed."""
    if log_with == "wandb" and find_spec("wandb") is None:
        raise UserError("--log_with wandb: not installed; pip install wandb, or use tensorboard or none")


def log_in(log_with: str) -> None:
    """Raises UserError if wandb knows no account; in its offline mode it needs none."""
    if log_with != "wandb":
        return
    import wandb

    try:
        wandb.login()
    except wandb.errors.Error as error:
        advice = "run wandb login, set WANDB_MODE=offline, or use tensorboard or none"
        raise UserError(f"--log_with wandb: {first_line(error)} ({advice})") from error


def tracker_options(log_with: str, folder: Path) -> dict[str, dict[str, str]]:
    """Further options of a tracker: wandb writes into the results folder."""
    return {"wandb": {"dir": os.environ.get("WANDB_DIR", str(folder))}} if log_with == "wandb" else {}


def peak_memory_gb(device: torch.device) -> float:
    """The most memory used so far, in GB: the GPU's, or this process's where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _sentence(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_number(name, value)}" for name, value in values.items())


def _number(name: str, value: float) -> str:
    if name == "seconds_to_end":
        return f"{int(value) // 3600}:{int(value) % 3600 // 60:02}:{int(value) % 60:02}"
    return f"{value:.4g}"
