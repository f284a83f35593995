"""The beginning of a run: the device, the seed, the results folder, and the checkpoint it goes on from."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from open_musiclm.config import Precision, Section
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.training import run_folder
from open_musiclm.training.checkpointing import find_checkpoint, read_state, results_folder_of
from open_musiclm.training.tracking import check_tracker


@dataclass(frozen=True)
class RunOptions:
    """What the command line says about any run, whatever it trains."""

    results_folder: Path
    overwrite: bool = False
    log_with: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    device: str | None = None
    continue_from: Path | None = None
    continue_from_step: int | None = None


@dataclass(frozen=True)
class Run:
    """A run that may begin: `checkpoint` is what it goes on from, None for a fresh start."""

    accelerator: Accelerator
    folder: Path
    checkpoint: Path | None
    configs: tuple[Section, Section]
    facts: Mapping[str, Any]

    @classmethod
    def begin(
        cls,
        options: RunOptions,
        model_config: Section,
        training_config: Section,
        seed: int,
        precision: Precision = "float32",
        batches_per_step: int = 1,
    ) -> "Run":
        """Checks the options, prepares the results folder and seeds everything (models are built after this).

        Raises UserError.
        """
        check_tracker(options.log_with)
        checkpoint = _checkpoint(options)
        accelerator = _accelerator(options, precision, batches_per_step)
        if accelerator.is_main_process:
            _prepare_folder(options, checkpoint)
        accelerator.wait_for_everyone()
        set_seed(seed)
        facts = {"seed": seed, "processes": accelerator.num_processes, "device": str(accelerator.device)}
        facts |= {"precision": precision, "continued_from": None if checkpoint is None else str(checkpoint)}
        return cls(accelerator, options.results_folder, checkpoint, (model_config, training_config), facts)

    def describe(self) -> None:
        """Writes what the run is into its folder, and opens the tracker."""
        if self.accelerator.is_main_process:
            run_folder.describe(self.folder, *self.configs, self.facts)
        self.accelerator.init_trackers(run_folder.TRACKER_FOLDER)

    @property
    def goes_on_in_place(self) -> bool:
        """Whether this run goes on in the results folder that it was stopped in."""
        return self.checkpoint is not None and results_folder_of(self.checkpoint) == self.folder.resolve()


def resume_command(folder: Path) -> str:
    """The command that goes on with the run of this process in its results folder."""
    words = shlex.split(run_folder.command_line())
    kept, skip = [], False
    for word in words:
        name = word.split("=")[0]
        dropped = name in ("--results_folder", "--continue_from_dir", "--continue_from_step", "--continue_from")
        dropped = dropped or name in ("--fine_tune_from", "--overwrite")
        if not dropped and not skip:
            kept.append(word)
        skip = dropped and name != "--overwrite" and "=" not in word
    option = "--continue_from" if "train_clap_rvq" in words[1] else "--continue_from_dir"
    return shlex.join([*kept, "--results_folder", str(folder), option, str(folder)])


def _checkpoint(options: RunOptions) -> Path | None:
    if options.continue_from is None:
        if options.continue_from_step is not None:
            raise UserError("--continue_from_step: needs --continue_from_dir, the results folder of that step")
        return None
    if not options.continue_from.is_dir():
        raise UserError(f"--continue_from_dir {options.continue_from}: no such folder")
    return find_checkpoint(options.continue_from, options.continue_from_step)


def _prepare_folder(options: RunOptions, checkpoint: Path | None) -> None:
    if checkpoint is not None and results_folder_of(checkpoint) == options.results_folder.resolve():
        run_folder.go_on_in(options.results_folder, read_state(checkpoint).step, options.overwrite)
    else:
        run_folder.begin_anew(options.results_folder, options.overwrite)


def _accelerator(options: RunOptions, precision: Precision, batches_per_step: int) -> Accelerator:
    device = choose_device(options.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if precision == "bfloat16" else "no",
        gradient_accumulation_steps=batches_per_step,
        log_with=None if options.log_with == "none" else options.log_with,
        project_dir=options.results_folder,
    )
