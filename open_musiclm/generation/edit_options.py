"""Edits of a given sound, instead of new music (no torch in here)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from open_musiclm.config import StageName

DEFAULT_CANDIDATES = 8


@dataclass(frozen=True)
class Infill:
    """Regenerates seconds [start, end) of a sound file, once per prompt; `end` None means up to its end."""

    first_stage: ClassVar[StageName] = "semantic"
    source: Path
    start: float
    end: float | None = None
    num_candidates: int = DEFAULT_CANDIDATES

    def total(self, prompts: Sequence[object]) -> int:
        """How many sounds this writes."""
        return max(len(prompts), 1)


@dataclass(frozen=True)
class Variation:
    """Regenerates a sound file from a stage on, `number` times; without prompts."""

    source: Path
    first_stage: StageName = "semantic"
    number: int = 1

    def total(self, prompts: Sequence[str]) -> int:
        """How many sounds this writes."""
        return self.number


Edit = Infill | Variation
