"""The folders of an evaluation, and their names (no torch in here)."""

import os
from collections.abc import Sequence
from pathlib import Path

from open_musiclm.errors import UserError

REFERENCE, GENERATED = "reference", "generated"


def named_sets(folders: Sequence[Path], reference: Path) -> dict[str, Path]:
    """The folders by name, each once: its own name, or its whole path where another one or the reference has that.

    Raises UserError if a folder and the reference lie inside each other: clips would be compared with themselves.
    """
    whole = _real(reference)
    different: dict[Path, Path] = {}
    for folder in folders:
        different.setdefault(_real(folder), folder)
    for real, folder in different.items():
        if whole in real.parents or real in whole.parents:
            inner, outer = (folder, reference) if whole in real.parents else (reference, folder)
            raise UserError(
                f"{outer}: holds {inner}, whose clips would be compared with themselves; use separate folders"
            )
    names = [REFERENCE, *(real.name for real in different)]
    return {
        real.name if names.count(real.name) == 1 and real.name else str(real): folder
        for real, folder in different.items()
    }


def _real(folder: Path) -> Path:
    """The resolved path of a folder; an invalid name is reported later, when it is opened."""
    try:
        return Path(os.path.realpath(folder))
    except ValueError:
        return folder
