"""The JSON card of an evaluation: what was compared with what, by which models, and every figure."""

import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from open_musiclm.evaluation.compare import Comparison
from open_musiclm.evaluation.measure import Measure
from open_musiclm.evaluation.options import EvaluationOptions
from open_musiclm.versions import versions

CARD_FORMAT = 1


def evaluation_card(
    reference: Comparison,
    sets: Mapping[str, Comparison],
    warnings: Sequence[str],
    measures: Mapping[str, Measure],
    options: EvaluationOptions,
) -> dict[str, Any]:
    """The card as JSON holds it."""
    return {
        "format": CARD_FORMAT,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "checkpoint": dict(options.checkpoint),
        "models": {name: {"name": own.name, "identity": own.identity} for name, own in measures.items()},
        "seed": options.resampling.seed,
        "bootstrap_replicates": options.resampling.replicates,
        "metrics": list(options.metrics),
        "seconds_of_each_clip": options.seconds,
        "most_clips": options.most_clips,
        "reference": _set(reference),
        "sets": {name: _set(own) for name, own in sets.items()},
        "warnings": list(warnings),
    }


def _set(own: Comparison) -> dict[str, Any]:
    measured = own.measured
    return {
        "folder": str(measured.folder),
        "clips": len(measured.clips),
        "prompts": len({clip.prompt for clip in measured.clips if clip.prompt is not None}),
        "left_out": list(measured.left_out),
        "figures": {figure.key: figure.as_json() for figure in own.figures},
    }
