"""Sound files that fail: each is reported, and the next usable file takes its place."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from open_musiclm.audio import SoundError
from open_musiclm.errors import UserError

Example = TypeVar("Example")


@dataclass(frozen=True)
class SoundFailure:
    """A sound file that could not be used, and why (a line with its path)."""

    path: Path
    reason: str


def first_usable(paths: Iterable[Path], make: Callable[[Path], Example]) -> tuple[Example, list[SoundFailure]]:
    """`make` of the first path for which it raises no SoundError, and the failures of the paths before it.

    Raises UserError where all of them fail.
    """
    failures: list[SoundFailure] = []
    for path in paths:
        try:
            return make(path), failures
        except SoundError as error:
            failures.append(SoundFailure(path, str(error)))
    raise UserError(f"none of the {len(failures)} sound files can be used; the first one is {failures[0].reason}")
