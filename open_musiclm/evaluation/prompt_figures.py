"""How well the clips of a set fit their prompts, as figures."""

from collections.abc import Sequence

import torch

from open_musiclm.evaluation.clips import EvaluationClip, texts_of
from open_musiclm.evaluation.distances import REPLICATES_OF_MEANS, Resampling, few_for_means
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.evaluation.figures import Figure, Kind, PerClip, median
from open_musiclm.evaluation.measured_set import ClipVectors
from open_musiclm.metrics.adherence import cosines, prompt_ranks, sound_ranks
from open_musiclm.metrics.intervals import percentile_interval

_WHOLE = "mean over windows that follow each other"
CLAP_SCORE = Kind("clap_score", "CLAP score", "higher", f"mean cosine of prompt and clip ({_WHOLE})")
CYCLE = Kind("cycle_consistency", "cycle consistency", "higher", f"the same by the model's own CLAP ({_WHOLE})")
PROMPT_RANK = Kind("prompt_rank", "rank of a clip's prompt, median", "lower", "among all different prompts of the set")
PROMPT_RECALL = Kind("prompt_recall_10", "prompt among the first 10", "higher", "share of clips")
SOUND_RANK = Kind("sound_rank", "rank of a prompt's clip, median", "lower", "the best of its clips among all clips")


def adherence_figures(
    clips: Sequence[EvaluationClip], whole: ClipVectors, clap: ClapMeasure, resampling: Resampling
) -> tuple[list[Figure], PerClip]:
    """CLAP score, and the ranks of prompts and clips among those of the set."""
    prompts, rng = texts_of(clips), resampling.rng()
    told = [place for place, clip in enumerate(clips) if clip.prompt is not None]
    kinds = (CLAP_SCORE, PROMPT_RANK, PROMPT_RECALL, SOUND_RANK)
    if not told:
        return [kind.absent("none: no clip has a prompt or caption", 0) for kind in kinds], {}
    texts, sounds = clap.embed_text(prompts), whole.vectors[told]
    places = {prompt: number for number, prompt in enumerate(prompts)}
    own = [places[clips[place].prompt or ""] for place in told]
    scores = cosines(sounds, texts[own])
    ranks, best = prompt_ranks(sounds, texts, own), sound_ranks(sounds, texts, own)
    warning = few_for_means(len(told))
    chance = f"; guessing: {(len(prompts) + 1) / 2:g} of {len(prompts)}"
    of_sounds = f"; guessing: about {(len(told) + 1) / 2:g} of {len(told)}"

    figures = [
        CLAP_SCORE.figure(percentile_interval(scores, torch.mean, REPLICATES_OF_MEANS, rng), len(told), None, warning),
        _noted(PROMPT_RANK, chance).figure(
            percentile_interval(ranks.double(), median, REPLICATES_OF_MEANS, rng), len(told), None, warning
        ),
        _noted(PROMPT_RECALL, f" of {len(prompts)} prompts; guessing: {min(10 / len(prompts), 1):.3g}").figure(
            percentile_interval((ranks <= 10).double(), torch.mean, REPLICATES_OF_MEANS, rng), len(told), None, warning
        ),
        _noted(SOUND_RANK, of_sounds).figure(
            percentile_interval(best.double(), median, REPLICATES_OF_MEANS, rng), len(told), None, warning
        ),
    ]
    per_clip = {CLAP_SCORE.key: scores, PROMPT_RANK.key: ranks.double()}
    return figures, {name: _spread(values, told, len(clips)) for name, values in per_clip.items()}


def cycle_figure(
    clips: Sequence[EvaluationClip], whole: ClipVectors, clap: ClapMeasure, resampling: Resampling
) -> Figure:
    """MusicLM's cycle consistency, with the CLAP that the model itself was trained with."""
    (score, *_), _ = adherence_figures(clips, whole, clap, resampling)
    note = CYCLE.note if score.value is not None else score.note
    return Figure(
        CYCLE.key, CYCLE.title, score.value, score.low, score.high, CYCLE.better, score.clips, None, note, score.warning
    )


def _noted(kind: Kind, more: str) -> Kind:
    return Kind(kind.key, kind.title, kind.better, kind.note + more)


def _spread(values: torch.Tensor, places: Sequence[int], count: int) -> torch.Tensor:
    """Values at their clips' places, NaN elsewhere."""
    spread = torch.full((count,), float("nan"), dtype=torch.float64)
    spread[list(places)] = values.double()
    return spread
