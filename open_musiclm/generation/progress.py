"""Progress of generation: one bar per stage, in seconds of music."""

from types import TracebackType

from tqdm import tqdm


class Progress:
    """Receives how much music each stage has made; this one ignores it."""

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
