"""Progress of generation, in seconds of music: a bar per stage on a terminal, a line every so often in a file."""

import sys
import time
from contextlib import suppress
from types import TracebackType

from tqdm import tqdm

from open_musiclm.progress_bar import SECONDS_BETWEEN_LINES
from open_musiclm.terminal import print_stderr


def stage_progress() -> "StageBars | StageLines":
    """Bars where standard error is a terminal, else lines."""
    return StageBars() if sys.stderr is not None and sys.stderr.isatty() else StageLines()


class Progress:
    """Receives how much music each stage has generated; this class ignores it."""

    def begin(self, stage: str, seconds: float) -> None:
        """A stage will make `seconds` of music."""

    def advance(self, stage: str, seconds: float) -> None:
        """It has made `seconds` more."""


class StageBars(Progress):
    """A bar for every stage that begins; in the next batch a stage continues its bar."""

    def __init__(self) -> None:
        self.bars: dict[str, tqdm] = {}

    def __enter__(self) -> "StageBars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal is gone
            for bar in self.bars.values():
                bar.close()

    def begin(self, stage: str, seconds: float) -> None:
        """A stage will make `seconds` of music."""
        if stage in self.bars:
            self.bars[stage].total += seconds
            self.bars[stage].refresh()
            return
        layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} s of music [{elapsed}<{remaining}]"
        self.bars[stage] = tqdm(total=seconds, desc=f"{stage:8}", bar_format=layout, position=len(self.bars))

    def advance(self, stage: str, seconds: float) -> None:
        """It has made `seconds` more."""
        bar = self.bars[stage]
        bar.update(min(seconds, bar.total - bar.n))  # sums of seconds are not exact, and tqdm warns of the excess


class StageLines(Progress):
    """A line about all stages every ten seconds, and one at the end."""

    def __init__(self) -> None:
        self.made: dict[str, float] = {}
        self.totals: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> "StageLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.totals and kind is None:
            self._write()

    def begin(self, stage: str, seconds: float) -> None:
        """A stage will make `seconds` of music."""
        self.made.setdefault(stage, 0.0)
        self.totals[stage] = self.totals.get(stage, 0.0) + seconds

    def advance(self, stage: str, seconds: float) -> None:
        """It has made `seconds` more."""
        self.made[stage] = min(self.made[stage] + seconds, self.totals[stage])
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._write()

    def _write(self) -> None:
        self._last_line = time.monotonic()
        stages = ", ".join(f"{stage} {self.made[stage]:.1f}/{total:.1f}" for stage, total in self.totals.items())
        print_stderr(f"{stages} s of music")
