"""What can be asked of a given sound instead of new music (no torch in here)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CANDIDATES = 8


@dataclass(frozen=True)
class Infill:
    """Seconds [start, end) of a sound file made anew, up to its end where `end` is None, once for each prompt."""

    source: Path
    start: float
    end: float | None = None
    num_candidates: int = DEFAULT_CANDIDATES

    def total(self, prompts: Sequence[object]) -> int:
        """How many sounds this gives."""
        return max(len(prompts), 1)
