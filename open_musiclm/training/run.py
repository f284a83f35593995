"""The start of a run: device, seed, results folder, and the checkpoint to resume from."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
    set_seed,
)

from open_musiclm.config import TrainingPrecision
from open_musiclm.config.json_files import Section
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.devices import choose_device, choose_precision
from open_musiclm.errors import UserError, first_line
from open_musiclm.training import run_folder
from open_musiclm.training.checkpointing import find_checkpoint, read_state, results_folder_of
from open_musiclm.training.options import RunOptions
from open_musiclm.training.run_folder import FolderClaim
from open_musiclm.training.tracking import check_tracker, log_in, tracker_options

# of all processes, while the main one writes a checkpoint or generates for `evaluate_every`; NCCL's own is ten minutes
_LONGEST_WAIT = timedelta(hours=2)
_REPLACED_WHEN_RESUMING = frozenset(
    (
        "--results_folder",
        "--continue_from",
        "--continue_from_dir",
        "--continue_from_step",
        "--fine_tune_from",
        "--overwrite",
    )
)


@dataclass(frozen=True)
class Run:
    """A run in the results folder `folder`, resumed from `checkpoint`, or new if that is None.

    `configs` are those of the model and the training, `facts` go into run.json. Only the main process has a `claim`. As
    a context it releases the folder at the end, unchanged if the run did not start.
    """

    accelerator: Accelerator
    options: RunOptions
    folder: Path
    checkpoint: Path | None
    configs: tuple[Section, Section]
    facts: Mapping[str, Any]
    claim: FolderClaim | None

    @classmethod
    def begin(
        cls,
        options: RunOptions,
        model_config: Section,
        training_config: Section,
        seed: int,
        precision: TrainingPrecision = "float32",
        batches_per_step: int = 1,
        outputs: Iterable[str] = (),
    ) -> "Run":
        """Checks the options, seeds everything, so that models can be built, and locks the results folder.

        Nothing else is written or removed yet. `outputs` are names of files that this kind of run writes there beside
        what every run does. Raises UserError.
        """
        check_tracker(options.log_with)
        checkpoint = _checkpoint(options)
        folder = options.results_folder
        if folder is None:
            resumed = None if checkpoint is None else results_folder_of(checkpoint)
            folder = Path("results") / options.name if resumed is None else resumed
        device = choose_device(options.device)
        accelerator = _accelerator(options, folder, device, batches_per_step)
        if accelerator.num_processes > 1:  # of another machine the list of a shared folder may be older
            (checkpoint,) = broadcast_object_list([checkpoint])
        set_seed(seed)
        facts = {"seed": seed, "processes": accelerator.num_processes, "device": str(accelerator.device)}
        facts |= {
            "precision": choose_precision(precision, device),
            "continued_from": None if checkpoint is None else str(checkpoint),
        }
        claim = None
        if accelerator.is_main_process:
            log_in(options.log_with)
            step = None if checkpoint is None else read_state(checkpoint).step
            in_place = checkpoint is not None and results_folder_of(checkpoint) == folder.resolve()
            claim = FolderClaim(folder, step if in_place else None, options.overwrite, outputs)
        accelerator.wait_for_everyone()  # no other process may write there before it is checked
        return cls(accelerator, options, folder, checkpoint, (model_config, training_config), facts, claim)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.claim is not None:
            self.claim.release()

    @property
    def resumes_in_place(self) -> bool:
        """Whether this run resumes in the results folder that it was stopped in."""
        return self.checkpoint is not None and results_folder_of(self.checkpoint) == self.folder.resolve()

    def wave_statistics(self) -> StatisticsCache:
        """The means and deviations of sound files, kept in the results folder."""
        return StatisticsCache(self.folder / run_folder.STATISTICS_NAME)

    def open_folder(self) -> None:
        """Prepares the results folder, writes the description of the run, and opens the tracker. Raises UserError."""
        if self.options.log_with == "wandb":
            self._open_tracker()  # it may fail, and nothing is removed yet
        if self.claim is not None:
            self.claim.begin()
            run_folder.describe(self.folder, *self.configs, self.facts)
        self.accelerator.wait_for_everyone()
        if self.options.log_with == "tensorboard":
            self._open_tracker()

    def resume_command(self) -> str:
        """The command that resumes this run in its results folder."""
        kept, value_follows = [], False
        for word in run_folder.command_line():
            name, equals, _ = word.partition("=")
            replaced = name in _REPLACED_WHEN_RESUMING
            if not replaced and not value_follows:
                kept.append(word)
            value_follows = replaced and not equals and name != "--overwrite"
        folder = str(self.folder)
        return shlex.join([*kept, "--results_folder", folder, self.options.continue_option, folder])

    def _open_tracker(self) -> None:
        options = tracker_options(self.options.log_with, self.folder)
        try:
            self.accelerator.init_trackers(run_folder.TRACKER_FOLDER, init_kwargs=options)
        except Exception as error:  # a tracker may raise anything
            raise UserError(f"--log_with {self.options.log_with}: cannot begin: {first_line(error)}") from error


def _checkpoint(options: RunOptions) -> Path | None:
    if options.continue_from is None:
        if options.continue_from_step is not None:
            raise UserError("--continue_from_step: needs --continue_from_dir, the results folder of that step")
        return None
    if not options.continue_from.is_dir():
        raise UserError(f"{options.continue_option} {options.continue_from}: no such folder")
    return find_checkpoint(options.continue_from, options.continue_from_step)


def _accelerator(options: RunOptions, folder: Path, device: torch.device, batches_per_step: int) -> Accelerator:
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",  # the trainers see to it, alike for whole and for sharded weights
        gradient_accumulation_steps=batches_per_step,
        log_with=None if options.log_with == "none" else options.log_with,
        project_dir=folder,
        kwargs_handlers=[
            # a stage's logit weights of the conditioning sequences take no part in the usual loss
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
        ],
    )
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise UserError("accelerate launch --use_fsdp: add --fsdp_version 2, the one that works here")
    return accelerator
