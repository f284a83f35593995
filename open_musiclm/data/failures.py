"""Sound files that fail: each is reported, and replaced by the next usable file."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from open_musiclm.audio import SoundError
from open_musiclm.errors import UserError

Item = TypeVar("Item")
Example = TypeVar("Example")


@dataclass(frozen=True)
class SoundFailure:
    """A sound file that could not be used, and why (a line with its path)."""

    path: Path
    reason: str


@contextmanager
def as_sound_error(path: Path) -> Iterator[None]:
    """Turns any error in the block into a SoundError of this file; another UserError passes unchanged."""
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise SoundError(f"{path}: needs more memory than there is; split it into shorter files") from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise SoundError(f"{path}: cannot be used: {type(error).__name__}: {reason}") from error


def first_usable(
    items: Iterable[Item], make: Callable[[Item], Example], path_of: Callable[[Item], Path]
) -> tuple[Example, list[SoundFailure]]:
    """`make` of the first item that does not fail, and the failures of those before it.

    An item is a sound file, or a part of one: `path_of` it. Raises UserError if all of them fail.
    """
    failures: list[SoundFailure] = []
    for item in items:
        path = path_of(item)
        try:
            with as_sound_error(path):
                return make(item), failures
        except SoundError as error:
            failures.append(SoundFailure(path, str(error)))
    raise UserError(f"none of the {len(failures)} sound files can be used; the first one is {failures[0].reason}")
