"""The options of the analysis (no torch in here)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SEED = 0  # of all random choices: the same atlas every time
PARTS = ("retrieval", "tokens", "gap", "probes", "arithmetic", "map")


@dataclass(frozen=True)
class AtlasOptions:
    """`captions` is how many captions of each sound count, the first ones; `group_by` a tag whose sounds the folds of a
    probe keep whole; `map_sounds` how many sounds, at random, are on the map.
    """

    folder: Path
    results_folder: Path
    labels: Path | None = None
    captions: int = 5
    tags: Sequence[str] | None = None
    group_by: str | None = None
    prompts: Sequence[str] = ()
    map_sounds: int = 1000
    parts: Sequence[str] = PARTS
