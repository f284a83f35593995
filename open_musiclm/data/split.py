"""The division into training and validation: the same on every machine.

A folder whose sound files are all below `train` and `valid` keeps that split: so no artist or album is in both
(scripts/prepare_dataset.py makes such folders).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from open_musiclm.data.example_order import random_generator

Name = TypeVar("Name", Path, str)


TRAINING_FOLDER, VALIDATION_FOLDER = "train", "valid"


def split_folder(paths: Sequence[Path], folder: Path, valid_frac: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Training and validation files below `folder`: by its folders `train` and `valid`, or else by `split`."""
    divided = indices_by_split_folder([Path(os.path.relpath(path, folder)).as_posix() for path in paths])
    if divided is None:
        return split(paths, valid_frac, seed)
    return [paths[place] for place in divided[0]], [paths[place] for place in divided[1]]


def indices_by_split_folder(names: Sequence[str]) -> tuple[list[int], list[int]] | None:
    """The names (paths below a folder) in its `train` and its `valid`; None if these do not divide all of them."""
    tops = [name.partition("/")[0] for name in names]
    training, validation = (
        [place for place, top in enumerate(tops) if top == wanted] for wanted in (TRAINING_FOLDER, VALIDATION_FOLDER)
    )
    is_divided = training and validation and len(training) + len(validation) == len(names)
    return (training, validation) if is_divided else None


def split(names: Sequence[Name], valid_frac: float, seed: int) -> tuple[list[Name], list[Name]]:
    """Training and validation files, both sorted, whatever the order of `names`.

    With any `valid_frac` above 0 there is at least one validation file, but never without one for training.
    """
    ordered = sorted(names)
    chosen = validation_places(len(ordered), valid_frac, seed)
    train = [name for index, name in enumerate(ordered) if index not in chosen]
    return train, [name for index, name in enumerate(ordered) if index in chosen]


def validation_places(count: int, valid_frac: float, seed: int) -> set[int]:
    """Which of `count` sorted names are for validation."""
    wanted = max(round(valid_frac * count), 1 if valid_frac > 0 else 0)
    return set(random_generator(seed, count).permutation(count)[: max(min(wanted, count - 1), 0)].tolist())
