"""How well the clips of a set fit their prompts, as figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from open_musiclm.evaluation.clips import EvaluationClip
from open_musiclm.evaluation.distances import REPLICATES_OF_MEANS, Resampling, few_for_means
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.evaluation.figures import Figure, Kind, PerClip, median
from open_musiclm.evaluation.vectors import ClipVectors, sample_note, some_numbers
from open_musiclm.metrics.adherence import cosines, prompt_ranks, sound_ranks
from open_musiclm.metrics.intervals import percentile_interval

MOST_RANKED = 5000  # clips, and prompts: the work grows with their number times that of all
_WHOLE = "mean over windows that follow each other"
CLAP_SCORE = Kind("clap_score", "CLAP score", "higher", f"mean cosine of prompt and clip ({_WHOLE})")
CYCLE = Kind("cycle_consistency", "cycle consistency", "higher", f"the same by the model's own CLAP ({_WHOLE})")
PROMPT_RANK = Kind("prompt_rank", "rank of a clip's prompt, median", "lower", "among all different prompts of the set")
PROMPT_RECALL = Kind("prompt_recall_10", "prompt among the first 10", "higher", "share of clips")
SOUND_RANK = Kind("sound_rank", "rank of a prompt's clip, median", "lower", "the best of its clips among all clips")


def adherence_figures(
    clips: Sequence[EvaluationClip], whole: ClipVectors, clap: ClapMeasure, resampling: Resampling
) -> tuple[list[Figure], PerClip]:
    """CLAP score, and the ranks of prompts and clips among those of the set; in a large set the ranks of some."""
    pairs, rng = _Pairs.of(clips), resampling.rng()
    if not pairs.clips:
        return [_without_prompts(kind) for kind in (CLAP_SCORE, PROMPT_RANK, PROMPT_RECALL, SOUND_RANK)], {}
    texts, sounds = clap.embed_text(pairs.prompts), whole.vectors[pairs.clips]
    clip_count, prompt_count = len(pairs.clips), len(pairs.prompts)
    ranked = some_numbers(clip_count, MOST_RANKED, rng).tolist()
    scores = cosines(sounds, texts[pairs.own])
    ranks = prompt_ranks(sounds[ranked], texts, [pairs.own[place] for place in ranked])
    best = sound_ranks(sounds, texts, pairs.own, some_numbers(prompt_count, MOST_RANKED, rng))
    of_clips = sample_note("clips", MOST_RANKED, clip_count)
    among = f"; guessing: {(prompt_count + 1) / 2:g} of {prompt_count}{of_clips}"
    first = f" of {prompt_count} prompts; guessing: {min(10 / prompt_count, 1):.3g}{of_clips}"
    of_prompts = sample_note("prompts", MOST_RANKED, prompt_count)
    of_sounds = f"; guessing: about {(clip_count + 1) / 2:g} of {clip_count}{of_prompts}"
    figures = [
        _figure(CLAP_SCORE, scores, torch.mean, rng),
        _figure(PROMPT_RANK.noted(among), ranks, median, rng),
        _figure(PROMPT_RECALL.noted(first), ranks <= 10, torch.mean, rng),
        _figure(SOUND_RANK.noted(of_sounds), best, median, rng),
    ]
    of_each = {CLAP_SCORE.key: (scores, pairs.clips), PROMPT_RANK.key: (ranks, [pairs.clips[n] for n in ranked])}
    return figures, {name: _spread(*values, len(clips)) for name, values in of_each.items()}


def cycle_figure(
    clips: Sequence[EvaluationClip], whole: ClipVectors, clap: ClapMeasure, resampling: Resampling
) -> Figure:
    """MusicLM's cycle consistency: the CLAP score by the CLAP that the model itself was trained with."""
    pairs = _Pairs.of(clips)
    if not pairs.clips:
        return _without_prompts(CYCLE)
    scores = cosines(whole.vectors[pairs.clips], clap.embed_text(pairs.prompts)[pairs.own])
    return _figure(CYCLE, scores, torch.mean, resampling.rng())


@dataclass(frozen=True)
class _Pairs:
    """The clips (by their numbers) that have a prompt, the different prompts, and the number of each clip's own."""

    clips: list[int]
    prompts: list[str]
    own: list[int]

    @classmethod
    def of(cls, clips: Sequence[EvaluationClip]) -> "_Pairs":
        numbers: dict[str, int] = {}
        told = [(place, clip.prompt) for place, clip in enumerate(clips) if clip.prompt is not None]
        own = [numbers.setdefault(prompt, len(numbers)) for _, prompt in told]
        return cls([place for place, _ in told], list(numbers), own)


def _without_prompts(kind: Kind) -> Figure:
    return kind.absent("none: no clip has a prompt or caption", 0)


def _figure(kind: Kind, values: Tensor, statistic: Callable[[Tensor], Tensor], rng: np.random.Generator) -> Figure:
    estimate = percentile_interval(values.double(), statistic, REPLICATES_OF_MEANS, rng)
    return kind.figure(estimate, len(values), None, few_for_means(len(values)))


def _spread(values: torch.Tensor, places: Sequence[int], count: int) -> torch.Tensor:
    """Values at their clips' places, NaN elsewhere."""
    spread = torch.full((count,), float("nan"), dtype=torch.float64)
    spread[list(places)] = values.double()
    return spread
