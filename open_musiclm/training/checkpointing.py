"""Checkpoints of a run, written atomically; the last few and the best are kept; resuming is exact.

results_folder/checkpoints/step_00001000/ holds the weights, one .pt per resumable part (tensors only),
random_<process>.safetensors and state.json; checkpoints/best.json names the best by validation loss.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from open_musiclm.checkpoints import BEST_NAME, CHECKPOINTS_FOLDER, saved_steps, step_folder
from open_musiclm.checkpoints.finite import check_finite, named_tensors
from open_musiclm.checkpoints.torch_files import read_torch_file
from open_musiclm.config.fields import NonNegativeInt
from open_musiclm.config.json_files import Section, load_section
from open_musiclm.errors import UserError, first_line
from open_musiclm.files import sync, write_json
from open_musiclm.training.early_stop import LossHistory
from open_musiclm.training.random_states import random_states, restore_random_states
from open_musiclm.training.trainer import Resumable, Trainer

STATE_NAME = "state.json"
_UNFINISHED = ".unfinished_"
_ANOTHER = "resume from another checkpoint (--continue_from_step)"
# What reading or taking back a state raises where its file is cut short, edited or of another training.
_DAMAGES = (
    OSError,
    SafetensorError,
    MemoryError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_RANDOM = "random_"


class TrainingState(Section):
    """The progress of a run: steps made, `draws` examples taken by all processes, and its best checkpoint."""

    step: NonNegativeInt = 0
    draws: NonNegativeInt = 0
    skipped_steps: NonNegativeInt = 0
    best_step: NonNegativeInt | None = None
    best_validation_loss: float | None = None
    best_is_chosen: bool = False
    losses: LossHistory = LossHistory()
    validated_step: NonNegativeInt | None = None  # the last one; None in older checkpoints

    def after_step(self, draws: int, loss: float) -> "TrainingState":
        """One step further, after `draws` examples in all."""
        return self.model_copy(update={"step": self.step + 1, "draws": draws, "losses": self.losses.trained(loss)})

    def with_losses(self, losses: LossHistory) -> "TrainingState":
        """With another history of losses."""
        return self.model_copy(update={"losses": losses})

    def after_validation(self, loss: float) -> "TrainingState":
        """With the loss of a validation after this step."""
        return self.model_copy(update={"losses": self.losses.validated(self.step, loss), "validated_step": self.step})

    def after_skip(self) -> "TrainingState":
        """With one more step that changed no weights."""
        return self.model_copy(update={"skipped_steps": self.skipped_steps + 1})

    def with_best(self, step: int | None, validation_loss: float | None, chosen: bool = False) -> "TrainingState":
        """With another best checkpoint, or none; see `Best` for `chosen`."""
        changes = {"best_step": step, "best_validation_loss": validation_loss, "best_is_chosen": chosen}
        return self.model_copy(update=changes)


class Best(Section):
    """The content of best.json; `chosen` says that the results folder stands for this checkpoint, not the newest."""

    step: NonNegativeInt
    validation_loss: float | None
    chosen: bool = False


def find_checkpoint(path: Path, step: int | None) -> Path:
    """The checkpoint folder to resume from: that of `step`, or the newest, in a results folder; or `path` itself.

    Raises UserError if there is none.
    """
    if (path / STATE_NAME).is_file():
        if step is not None and _step_of(path) != step:
            raise UserError(
                f"--continue_from_step {step}: {path} is the checkpoint of step {_step_of(path)}; "
                "give the results folder, or leave the step out"
            )
        return path
    steps = saved_steps(path)
    if not steps:
        raise UserError(f"{path}: holds no checkpoint to resume from; give a results folder or a checkpoint folder")
    if step is not None and step not in steps:
        raise UserError(f"--continue_from_step {step}: {path} has {', '.join(map(str, steps))}")
    return step_folder(path, steps[-1] if step is None else step)


def results_folder_of(checkpoint: Path) -> Path | None:
    """The results folder of a checkpoint folder; None if the folder is not in one, such as a copy elsewhere."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == CHECKPOINTS_FOLDER else None


def read_state(checkpoint: Path) -> TrainingState:
    """The progress of the run at this checkpoint. Raises UserError."""
    file = checkpoint / STATE_NAME
    try:
        return load_section(file, TrainingState)
    except UserError as error:
        raise UserError(f"{error}; this is not the state of a training run: {_ANOTHER}") from error


def save_checkpoint(
    results_folder: Path, trainer: Trainer, state: TrainingState, accelerator: Accelerator, keep_last: int
) -> Path:
    """Writes the checkpoint of `state` (every process calls this), then removes what need not be kept.

    The write is atomic. Raises UserError, and leaves the older checkpoints as they are, where it fails.
    """
    folder = step_folder(results_folder, state.step)
    unfinished = folder.with_name(_UNFINISHED + folder.name)
    try:
        if accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        accelerator.wait_for_everyone()
        save_file(random_states(accelerator.device), unfinished / _random_name(accelerator.process_index))
        _write_parts(unfinished, trainer, state, accelerator)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _publish(unfinished, folder)
            _remove_old(results_folder, state, keep_last)
    except (OSError, RuntimeError, SafetensorError, UserError) as error:
        reason = _refusal(unfinished.with_name(f"{unfinished.name}_probe")) or first_line(error)
        shutil.rmtree(unfinished, ignore_errors=True)
        kept = saved_steps(results_folder)
        remains = f"; the checkpoint of step {kept[-1]} is intact" if kept else ""
        raise UserError(f"{folder}: cannot write this checkpoint: {reason}{remains}") from error
    accelerator.wait_for_everyone()
    return folder


def restore_checkpoint(checkpoint: Path, trainer: Trainer, accelerator: Accelerator) -> TrainingState:
    """Restores the trainer and the random states of this process. Raises UserError.

    With more processes than before, the new ones keep their own random states.
    """
    state = read_state(checkpoint)
    trainer.read_weights(checkpoint)
    for name, part in trainer.resumable().items():
        file = checkpoint / f"{name}.pt"
        try:
            content = read_torch_file(file)  # mapped: a process keeps no more than its shards
            check_finite(dict(named_tensors(content)), file)
            part.load_state_dict(content)
        except UserError as error:
            raise UserError(f"{error}; {_ANOTHER}") from error
        except _DAMAGES as error:
            raise UserError(f"{file}: damaged, or of another training: {first_line(error)}; {_ANOTHER}") from error
    file = checkpoint / _random_name(accelerator.process_index)
    if file.exists() or accelerator.is_main_process:
        try:
            restore_random_states(load_file(file), accelerator.device)
        except _DAMAGES as error:
            raise UserError(f"{file}: not the random states of a process: {first_line(error)}; {_ANOTHER}") from error
    return state


def write_best(results_folder: Path, state: TrainingState) -> None:
    """Writes best.json, if there is a best checkpoint."""
    if state.best_step is not None:
        best = Best(step=state.best_step, validation_loss=state.best_validation_loss, chosen=state.best_is_chosen)
        write_json(results_folder / CHECKPOINTS_FOLDER / BEST_NAME, best.model_dump())


def remove_unfinished(results_folder: Path) -> None:
    """Removes unfinished checkpoints of a killed run."""
    for leftover in (results_folder / CHECKPOINTS_FOLDER).glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_checkpoint(results_folder: Path, step: int) -> None:
    """Removes a checkpoint; a half removed one does not count as complete."""
    folder = step_folder(results_folder, step)
    doomed = folder.with_name(_UNFINISHED + folder.name)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def _write_parts(folder: Path, trainer: Trainer, state: TrainingState, accelerator: Accelerator) -> None:
    """All processes gather what is sharded; the main one writes it."""
    trainer.write_weights(folder)
    if accelerator.is_main_process:
        _check_weights(folder)
    parts: Mapping[str, Resumable] = trainer.resumable()
    for name, part in parts.items():
        content = part.state_dict()
        if accelerator.is_main_process:
            check_finite(dict(named_tensors(content)), f"{name}.pt")
            with (folder / f"{name}.pt").open("wb") as file:
                torch.save(content, file)
    if accelerator.is_main_process:
        write_json(folder / STATE_NAME, state.model_dump())


def _check_weights(folder: Path) -> None:
    """Raises UserError if the weights in a checkpoint hold NaN or infinity."""
    for file in sorted(folder.rglob("*.safetensors")):
        if not file.name.startswith(_RANDOM):  # where NaN stands for none
            check_finite(load_file(file), file.relative_to(folder).as_posix())


def _publish(unfinished: Path, folder: Path) -> None:
    """Makes a written folder the checkpoint."""
    for entry in sorted(unfinished.rglob("*")):
        sync(entry)
    sync(unfinished)
    os.replace(unfinished, folder)
    sync(folder.parent)


def _remove_old(results_folder: Path, state: TrainingState, keep_last: int) -> None:
    write_best(results_folder, state)
    for step in saved_steps(results_folder)[:-keep_last]:
        if step != state.best_step:
            remove_checkpoint(results_folder, step)


def _random_name(process: int) -> str:
    return f"{_RANDOM}{process}.safetensors"


def _step_of(checkpoint: Path) -> int:
    return read_state(checkpoint).step


def _refusal(probe: Path) -> str | None:
    """The error of a test write, None if it succeeds: torch and safetensors hide the reason."""
    try:
        with probe.open("wb") as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error.strerror
    finally:
        probe.unlink(missing_ok=True)
    return None
