"""The prompts of a set of clips, embedded by a CLAP: texts, and prompts of several parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.evaluation.clips import EvaluationClip
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.generation.prompts.prompt_checks import check_prompts
from open_musiclm.generation.prompts.prompting import SteadyPrompt
from open_musiclm.generation.prompts.story import AnyPrompt, Story, during

_PROMPTS_AT_ONCE = 64
STORY_NOTE = "; of a story its prompts, each weighted by how long it is asked for"


@dataclass(frozen=True)
class ClipPrompts:
    """The clips (by their numbers) whose prompt can be embedded, the embeddings of all different prompts, and the index
    of each clip's own. `note` describes these clips and the missing ones."""

    clips: list[int]
    vectors: Float[Tensor, "prompts dim"]
    own: list[int]
    note: str


@dataclass(frozen=True)
class _TimedPrompt:
    """A prompt, its name, and for a story its seconds."""

    name: str
    prompt: AnyPrompt
    seconds: float

    @classmethod
    def of(cls, clip: EvaluationClip, seconds: float) -> "_TimedPrompt":
        assert clip.prompt is not None
        prompt = clip.prompt if clip.described is None else clip.described
        return cls(clip.prompt, prompt, seconds if isinstance(prompt, Story) else 0.0)


def embed_clip_prompts(clips: Sequence[EvaluationClip], seconds: Sequence[float], clap: ClapMeasure) -> ClipPrompts:
    """The embeddings of the prompts of clips of so many `seconds`: of texts, and of mixtures as for the model. Style
    sounds are read again; clips whose style sound is missing or changed are skipped.
    """
    asked: dict[tuple[str, float], _TimedPrompt] = {}
    keys: dict[int, tuple[str, float]] = {}
    for place, clip in enumerate(clips):
        if clip.prompt is not None:
            one = _TimedPrompt.of(clip, seconds[place])
            keys[place] = (one.name, one.seconds)
            asked.setdefault(keys[place], one)
    vectors: dict[tuple[str, float], Tensor] = {}
    ordered = list(asked.items())
    for first in range(0, len(ordered), _PROMPTS_AT_ONCE):
        some = ordered[first : first + _PROMPTS_AT_ONCE]
        steady = {key: found for key, one in some if (found := _steady(one)) is not None}
        if steady:
            vectors |= zip(steady, clap.prompts.embed(list(steady.values())).cpu(), strict=True)
    numbers = {key: number for number, key in enumerate(vectors)}
    places = [place for place, key in keys.items() if key in vectors]
    stacked = torch.stack(list(vectors.values())) if vectors else torch.zeros(0, clap.clap.embedding_dim)
    note = STORY_NOTE if any(isinstance(one.prompt, Story) for one in asked.values()) else ""
    if len(places) < len(keys):
        note += f"; {len(keys) - len(places)} clips left out, whose style sounds have gone or have changed"
    return ClipPrompts(places, stacked, [numbers[keys[place]] for place in places], note)


def _steady(asked: _TimedPrompt) -> SteadyPrompt | None:
    """The prompt with its sounds; None if they have changed."""
    if isinstance(asked.prompt, str):
        return asked.prompt
    try:
        (prompt,) = check_prompts(asked.prompt)
    except UserError:
        return None
    return during(prompt, 0, asked.seconds) if str(prompt) == asked.name else None
