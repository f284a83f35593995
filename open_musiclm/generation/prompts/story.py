"""Stories: the prompt changes during the music."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from open_musiclm.generation.prompts.prompting import Mixture, Prompt, SteadyPrompt, number_text

# A crossfade changes in steps of this length at most; each step costs every stage a prefill.
CROSSFADE_STEP_SECONDS = 1.0
_NOTHING = 1e-9  # seconds; a share below this is rounding


@dataclass(frozen=True)
class Story:
    """Prompts along time: pairs of a second of new music and the prompt from then on; the first second is 0.

    `crossfade` is the time, in seconds, in which the embedding moves from one prompt to the next; it starts at the next
    prompt's time. `generate` and `stream` check the fields, and raise UserError.
    """

    parts: Sequence[tuple[float, SteadyPrompt]]
    crossfade: float = 0.0

    def __str__(self) -> str:
        """Its name, as `Prompt`'s."""
        name = "; ".join(f"{number_text(start)}:{prompt}" for start, prompt in self.parts)
        return f"{name}; crossfade {number_text(self.crossfade)}" if self.crossfade else name

    def steps(self) -> list[tuple[float, SteadyPrompt]]:
        """Pairs of a start in seconds and the prompt from then on; a crossfade is several steps."""
        count = max(math.ceil(self.crossfade / CROSSFADE_STEP_SECONDS), 1) if self.crossfade else 0
        (_, first), *later = self.parts
        found = [(0.0, first)]
        for start, prompt in later:
            bounds = [start + self.crossfade * step / max(count, 1) for step in range(count + 1)]
            fading = pairwise(bounds)
            found += [(begin, self.during(begin, end)) for begin, end in fading]
            found.append((bounds[-1], prompt))
        return found

    def during(self, start: float, end: float) -> SteadyPrompt:
        """The prompt of seconds [start, end): a mixture, weighted by how long each prompt lasts there."""
        asked = [self._asked(place, end) - self._asked(place, start) for place in range(len(self.parts) + 1)]
        weights = [own - later for own, later in pairwise(asked)]
        least = _NOTHING * (end - start)
        present = [(prompt, weight) for (_, prompt), weight in zip(self.parts, weights, strict=True) if weight > least]
        if len(present) == 1:
            return present[0][0]
        return Mixture([replace(_part(prompt), weight=weight) for prompt, weight in present])

    def _asked(self, place: int, time: float) -> float:
        """For how many seconds up to `time` this prompt or a later one was active."""
        if place == len(self.parts):
            return 0.0
        since = max(time - (self.parts[place][0] if place else 0.0), 0.0)
        if place == 0 or self.crossfade == 0:
            return since
        faded = min(since, self.crossfade)
        return faded**2 / (2 * self.crossfade) + since - faded


def _part(prompt: SteadyPrompt) -> Prompt | Mixture:
    return Prompt(prompt) if isinstance(prompt, str) else prompt


AnyPrompt: TypeAlias = SteadyPrompt | Story


def steps_of(prompt: AnyPrompt) -> list[tuple[float, SteadyPrompt]]:
    """As `Story.steps`; any other prompt is one step from 0 on."""
    return prompt.steps() if isinstance(prompt, Story) else [(0.0, prompt)]


def during(prompt: AnyPrompt, start: float, end: float) -> SteadyPrompt:
    """As `Story.during`; any other prompt is returned unchanged."""
    return prompt.during(start, end) if isinstance(prompt, Story) else prompt
