"""The metrics that a person can ask for by name (no torch in here)."""

from typing import Literal, get_args

MetricName = Literal["fad", "kad", "density", "prompts", "mert", "tempo", "levels", "kl"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
DEFAULT_METRICS: tuple[MetricName, ...] = tuple(name for name in METRICS if name != "kl")
CLIP_SECONDS = (0.1, 86_400.0)  # what of each clip may count: a tenth of a second to a day
NEEDS_CLAP = frozenset(("fad", "kad", "density", "prompts"))
NEEDS_MODEL = NEEDS_CLAP | {"mert"}
