"""Tempo and levels of the clips of a set, as figures."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.evaluation.clips import EvaluationClip
from open_musiclm.evaluation.distances import Resampling, few_for_means
from open_musiclm.evaluation.figures import Figure, Metric, PerClip, median
from open_musiclm.evaluation.sound_measures import LevelMeasure
from open_musiclm.evaluation.vectors import ClipVectors
from open_musiclm.metrics import tempo
from open_musiclm.metrics.intervals import percentile_interval

_BPM = "clips whose text or caption names beats per minute"
TEMPO_1 = Metric("tempo_accuracy_1", "tempo right (within 4 %)", "higher", _BPM)
TEMPO_2 = Metric("tempo_accuracy_2", "tempo right, or an octave off", "higher", f"{_BPM}; factors 2, 3, 1/2, 1/3")
TEMPO_WORD = Metric("tempo_word", "tempo as its word says", "higher", "slow below 80, fast from 120 beats per minute")
CLIPPED = Metric(
    "clipped_clips", "clips with clipping", "lower", "three samples in a row at full scale, in any channel"
)
SILENT = Metric("silent_share", "silence, mean share", "lower", "tenths of a second below -60 dB, channels averaged")
LOUDNESS = Metric(
    "loudness", "loudness, median, LUFS", "neither", "ITU-R BS.1770-4, all channels; silent clips left out"
)
SECONDS = Metric("seconds", "length, median, s", "neither", "of what was evaluated of each clip")


def tempo_figures(
    clips: Sequence[EvaluationClip], estimates: ClipVectors, resampling: Resampling
) -> tuple[list[Figure], PerClip]:
    """The share of clips whose estimated tempo is the named one; an estimate that is missing is wrong."""
    bpm = estimates.vectors[:, 0].double()
    numbers = [clip.bpm if clip.bpm is not None else tempo.named_bpm(clip.text or "") for clip in clips]
    words = [tempo.named_class(clip.text or "") for clip in clips]
    found: list[tuple[Metric, Sequence, Callable[..., bool]]] = [
        (TEMPO_1, numbers, tempo.same_tempo),
        (TEMPO_2, numbers, tempo.same_tempo_but_for_octave),
        (TEMPO_WORD, words, tempo.fits),
    ]
    prompts = [clip.text for clip in clips]
    return [_share(metric, bpm, named, prompts, agree, resampling) for metric, named, agree in found], {"bpm": bpm}


def _share(
    metric: Metric,
    bpm: Float[Tensor, "clips"],
    named: Sequence,
    prompts: Sequence[str | None],
    agree: Callable[..., bool],
    resampling: Resampling,
) -> Figure:
    right = [agree(float(bpm[place]), name) for place, name in enumerate(named) if name is not None]
    groups = [prompt for prompt, name in zip(prompts, named, strict=True) if name is not None]
    if not right:
        return metric.absent("none: no prompt or caption names one", 0)
    estimate = percentile_interval(torch.tensor(right).double(), torch.mean, resampling.rng(), groups=groups)
    return metric.figure(estimate, len(right), None, few_for_means(len(set(groups))))


def level_figures(levels: ClipVectors, resampling: Resampling) -> tuple[list[Figure], PerClip]:
    """Clipping, silence, loudness and length."""
    columns = levels.vectors.double().T
    loudness = columns[LevelMeasure.LOUDNESS]
    wanted: list[tuple[Metric, Tensor, Callable[[Tensor], Tensor]]] = [
        (CLIPPED, (columns[LevelMeasure.CLIPPED] > 0).double(), torch.mean),
        (SILENT, columns[LevelMeasure.SILENT], torch.mean),
        (LOUDNESS, loudness[loudness.isfinite()], median),
        (SECONDS, columns[LevelMeasure.SECONDS], median),
    ]
    figures = [
        metric.figure(percentile_interval(values, statistic, resampling.rng()), len(values))
        if len(values)
        else metric.absent("none: all clips are silent", 0)
        for metric, values, statistic in wanted
    ]
    per_clip = {
        "loudness": loudness,
        "clipped_share": columns[LevelMeasure.CLIPPED],
        "silent_share": columns[LevelMeasure.SILENT],
        "seconds": columns[LevelMeasure.SECONDS],
    }
    return figures, per_clip
