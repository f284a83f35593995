"""The options of any training run (no torch in here)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class RunOptions:
    """Where a run writes, where it runs, and what it resumes from.

    `results_folder` None means that of the resumed run, or results/`name`. `continue_from` is a results folder or a
    checkpoint folder; `continue_option` is its name in messages.
    """

    name: str
    results_folder: Path | None = None
    overwrite: bool = False
    log_with: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    device: str | None = None
    continue_from: Path | None = None
    continue_from_step: int | None = None
    continue_option: str = "--continue_from_dir"
