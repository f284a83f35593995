"""Progress of work whose length is known: a bar on a terminal, a line every ten seconds in a file."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from open_musiclm.terminal import print_stderr

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit} [{elapsed}<{remaining}{postfix}]"


def progress_bar(
    total: float, description: str, unit: str, smoothing: float = 0.3, hidden: bool = False
) -> "tqdm[Any]":
    """A progress bar as a context; `smoothing` 0 estimates by the mean speed. It also reports the end of the work."""
    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(total=total, desc=description, unit=unit, smoothing=smoothing, disable=hidden)
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        smoothing=smoothing,
        disable=hidden,
        file=_Lines(),
        bar_format=_LINE,
        mininterval=SECONDS_BETWEEN_LINES,
        maxinterval=SECONDS_BETWEEN_LINES,
    )


def with_progress(items: Iterable[Item], total: int, description: str, unit: str) -> Iterator[Item]:
    """Yields the items, with a progress bar."""
    with progress_bar(total, description, unit) as bar:
        for item in items:
            yield item
            bar.update()


class _Lines:
    """What tqdm writes as lines of their own, which may fail without a consequence."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print_stderr(line)

    def flush(self) -> None:
        """Does nothing: `write` prints each line at once."""
