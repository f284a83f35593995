"""The division into training and validation: the same on every machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from open_musiclm.data.example_order import random_generator

Name = TypeVar("Name", Path, str)


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
