"""How well the clips of a set match their prompts, as figures."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from open_musiclm.evaluation.clip_prompts import ClipPrompts
from open_musiclm.evaluation.distances import Resampling, few_for_means
from open_musiclm.evaluation.figures import Figure, Metric, PerClip, median
from open_musiclm.evaluation.vectors import ClipVectors, sample_note, some_numbers
from open_musiclm.metrics.adherence import chance_rank, cosines, prompt_ranks, sound_ranks
from open_musiclm.metrics.intervals import percentile_interval

MOST_RANKED = 5000  # clips, and prompts: the work grows with their number times that of all
_WHOLE = "mean over windows that follow each other"
CLAP_SCORE = Metric("clap_score", "CLAP score", "higher", f"mean cosine of prompt and clip ({_WHOLE})")
CYCLE = Metric("cycle_consistency", "cycle consistency", "higher", f"the same by the model's own CLAP ({_WHOLE})")
PROMPT_RANK = Metric(
    "prompt_rank", "rank of a clip's prompt, median", "lower", "among all different prompts of the set"
)
PROMPT_RECALL = Metric("prompt_recall_10", "prompt among the first 10", "higher", "share of clips")
SOUND_RANK = Metric("sound_rank", "rank of a prompt's clip, median", "lower", "the best of its clips among all clips")


def adherence_figures(
    clip_prompts: ClipPrompts, whole: ClipVectors, resampling: Resampling
) -> tuple[list[Figure], PerClip]:
    """CLAP score, and the ranks of prompts and clips among those of the set; in a large set the ranks of some."""
    rng = resampling.rng()
    if not clip_prompts.clips:
        return [
            _without_prompts(metric, clip_prompts) for metric in (CLAP_SCORE, PROMPT_RANK, PROMPT_RECALL, SOUND_RANK)
        ], {}
    prompts, sounds = clip_prompts.vectors, whole.vectors[clip_prompts.clips]
    clip_count, prompt_count = len(clip_prompts.clips), len(prompts)
    ranked = some_numbers(clip_count, MOST_RANKED, rng).tolist()
    scores = cosines(sounds, prompts[clip_prompts.own])
    own = [clip_prompts.own[place] for place in ranked]
    ranks = prompt_ranks(sounds[ranked], prompts, own)
    best = sound_ranks(sounds, prompts, clip_prompts.own, some_numbers(prompt_count, MOST_RANKED, rng))
    of_clips = sample_note("clips", MOST_RANKED, clip_count)
    among = f"; chance level: {(prompt_count + 1) / 2:g} of {prompt_count}{of_clips}"
    first = f" of {prompt_count} prompts; chance level: {min(10 / prompt_count, 1):.3g}{of_clips}"
    of_prompts = sample_note("prompts", MOST_RANKED, prompt_count)
    by_chance = chance_rank(clip_count, np.bincount(clip_prompts.own, minlength=prompt_count))
    of_sounds = f"; chance level: {by_chance} of {clip_count}{of_prompts}"
    figures = [
        _figure(CLAP_SCORE.with_note(clip_prompts.note), scores, torch.mean, rng, clip_prompts.own),
        _figure(PROMPT_RANK.with_note(among), ranks, median, rng, own),
        _figure(PROMPT_RECALL.with_note(first), ranks <= 10, torch.mean, rng, own),
        _figure(SOUND_RANK.with_note(of_sounds), best, median, rng, range(len(best))),
    ]
    of_each = {
        CLAP_SCORE.key: (scores, clip_prompts.clips),
        PROMPT_RANK.key: (ranks, [clip_prompts.clips[n] for n in ranked]),
    }
    count = int(whole.clips[-1]) + 1
    return figures, {name: _spread(*values, count) for name, values in of_each.items()}


def cycle_figure(clip_prompts: ClipPrompts, whole: ClipVectors, resampling: Resampling) -> Figure:
    """MusicLM's cycle consistency: the CLAP score by the CLAP that the model itself was trained with."""
    if not clip_prompts.clips:
        return _without_prompts(CYCLE, clip_prompts)
    scores = cosines(whole.vectors[clip_prompts.clips], clip_prompts.vectors[clip_prompts.own])
    return _figure(CYCLE.with_note(clip_prompts.note), scores, torch.mean, resampling.rng(), clip_prompts.own)


def _without_prompts(metric: Metric, clip_prompts: ClipPrompts) -> Figure:
    return metric.absent(f"none: no clip has a prompt or caption{clip_prompts.note}", 0)


def _figure(
    metric: Metric,
    values: Tensor,
    statistic: Callable[[Tensor], Tensor],
    rng: np.random.Generator,
    prompts: Sequence[int],
) -> Figure:
    """The figure of a value for each clip; `prompts` are those of the clips, which are resampled whole."""
    estimate = percentile_interval(values.double(), statistic, rng, groups=prompts)
    return metric.figure(estimate, len(values), None, few_for_means(len(set(prompts))))


def _spread(values: torch.Tensor, places: Sequence[int], count: int) -> torch.Tensor:
    """Values at their clips' places, NaN elsewhere."""
    spread = torch.full((count,), float("nan"), dtype=torch.float64)
    spread[list(places)] = values.double()
    return spread
