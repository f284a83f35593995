"""What an evaluation compares, and where it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from open_musiclm.errors import UserError
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.metric_names import CLIP_SECONDS, MetricName


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
    resampling: Resampling
    most_clips: int | None = None
    seconds: float | None = None
    checkpoint: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least, most = CLIP_SECONDS
        if self.seconds is not None and not least <= self.seconds <= most:
            raise UserError(f"seconds: expected {least:g} to {most:g}, found {self.seconds:g}")
