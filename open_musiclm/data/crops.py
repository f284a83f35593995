"""Crops of a sound file: the wave of each tokenizer, cut from a window of samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import WaveStatistics, fit_length, normalize, resample, samples_of
from open_musiclm.config import ModelConfig

TokenizerKind = Literal["clap", "semantic", "acoustic"]
TOKENIZER_KINDS: tuple[TokenizerKind, ...] = ("clap", "semantic", "acoustic")


@dataclass(frozen=True)
class Crop:
    """A crop of a file for one tokenizer: length, rate, and whether it is normalised by the whole file's statistics."""

    name: str
    seconds: float
    sample_hz: int
    normalized: bool


def tokenizer_crop(kind: TokenizerKind, seconds: float, config: ModelConfig) -> Crop:
    """The crop of `seconds` for one tokenizer, at its sample rate. Only MERT's (semantic) is normalised."""
    sample_hz = {
        "clap": config.clap_rvq_cfg.sample_hz,
        "semantic": config.hubert_kmeans_cfg.target_sample_hz,
        "acoustic": config.encodec_cfg.sample_hz,
    }
    return Crop(kind, seconds, sample_hz[kind], normalized=kind == "semantic")


def cut(
    window: Float[Tensor, "_"], from_hz: int, crop: Crop, statistics: WaveStatistics | None
) -> Float[Tensor, "samples"]:
    """The start of a window, as `crop` says: cut, normalised, resampled. `statistics` are those of the whole file."""
    wave = window[: span_of(crop, from_hz)]
    if crop.normalized:
        assert statistics is not None
        wave = normalize(wave, statistics)
    return fit_length(resample(wave, from_hz, crop.sample_hz), samples_of(crop.seconds, crop.sample_hz))


def span_of(crop: Crop, file_hz: int) -> int:
    """The samples of a file at `file_hz` that hold all of a crop: never fewer than it needs."""
    return math.ceil(round(crop.seconds * file_hz, 6))


def nested_starts(spans: Sequence[int], generator: np.random.Generator) -> list[int]:
    """Random starts of spans, each inside the one before it: `spans[0]` is the whole, which begins at 0.

    Returns one start for each further span. Equal spans share theirs; one that is longer than the span before
    it starts where that one does.
    """
    starts, first = [], 0
    for outer, inner in pairwise(spans):
        first += int(generator.integers(0, outer - inner, endpoint=True)) if inner < outer else 0
        starts.append(first)
    return starts
