"""Short training runs, and what their results folders hold."""

from argparse import Namespace
from pathlib import Path

from accelerate.state import AcceleratorState

from helpers import small_training

STEPS = 6


def train(folder: Path, **changes: object) -> None:
    """A run of six steps with a checkpoint after the fifth."""
    AcceleratorState._reset_state(reset_partial_state=True)
    parsed = small_training.arguments().parse_args(["--results_folder", str(folder), "--steps", str(STEPS)])
    small_training.main(Namespace(**{**vars(parsed), **changes}))


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of each file, by its path in the folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
