"""The arguments that name LoRA adapters, of every script that loads a stage."""

import argparse
from pathlib import Path

from open_musiclm.argument_types import OFF, finite_float
from open_musiclm.errors import UserError
from open_musiclm.generation.paths import AdapterPath


def add_adapter_arguments(to: argparse.ArgumentParser) -> None:
    """`--adapter_path` and `--adapter_weight`, both of which may be there several times."""
    to.add_argument(
        "--adapter_path",
        action="append",
        default=None,
        help="a LoRA adapter: its file, a folder of such, or the results folder of its training; may be given several "
        f"times; {OFF}: none, not even those of the bundle",
    )
    to.add_argument(
        "--adapter_weight",
        action="append",
        type=finite_float,
        default=None,
        help="what the adapter at the same place is multiplied by (default: 1)",
    )


def adapter_paths_from(arguments: argparse.Namespace) -> list[AdapterPath] | None:
    """The adapters that the command line names, None where it names none. Raises UserError."""
    paths, weights = arguments.adapter_path, arguments.adapter_weight or []
    if paths is None and not weights:
        return None
    if paths is None or len(weights) not in (0, len(paths)):
        raise UserError(
            f"--adapter_weight: given {len(weights)} times, and --adapter_path {len(paths or ())} times; give one "
            "weight for each adapter, or none"
        )
    if OFF in paths:
        if len(paths) > 1 or weights:
            raise UserError(f"--adapter_path {OFF}: means no adapter; leave out the others and --adapter_weight")
        return []
    return [AdapterPath(Path(path), weight) for path, weight in zip(paths, weights or [1.0] * len(paths), strict=True)]
