"""What an evaluation compares, by which metrics, and where it writes (no torch in here)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from open_musiclm.errors import UserError

if TYPE_CHECKING:
    from open_musiclm.evaluation.distances import Resampling

MetricName = Literal["fad", "kad", "density", "prompts", "mert", "tempo", "levels", "kl"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
DEFAULT_METRICS: tuple[MetricName, ...] = tuple(name for name in METRICS if name != "kl")
CLIP_SECONDS = (0.1, 86_400.0)  # what of each clip may count: a tenth of a second to a day
NEEDS_CLAP = frozenset(("fad", "kad", "density", "prompts"))
NEEDS_MODEL = NEEDS_CLAP | {"mert"}


@dataclass(frozen=True)
class EvaluationOptions:
    """What is compared: folders, the metrics, how many clips of each folder and how much of each clip at most, and how
    intervals are made. Results are written to `results_folder`, measurements of files kept in `cache_folder`.

    `checkpoint` is what the card says about the model that was evaluated. Raises UserError for `seconds` that no clip
    has.
    """

    folders: Sequence[Path]
    reference: Path
    metrics: Sequence[MetricName]
    results_folder: Path
    cache_folder: Path
    resampling: "Resampling"
    most_clips: int | None = None
    seconds: float | None = None
    checkpoint: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least, most = CLIP_SECONDS
        if self.seconds is not None and not least <= self.seconds <= most:
            raise UserError(f"seconds: expected {least:g} to {most:g}, found {self.seconds:g}")
