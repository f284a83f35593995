"""Stories: what is asked for changes while the music goes on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from open_musiclm.generation.prompting import Mixture, Prompt, SteadyPrompt, number_text

# A crossfade changes in steps of this length at most; each step costs every stage a prefill.
CROSSFADE_STEP_SECONDS = 1.0
_NOTHING = 1e-9  # of a stretch: what rounding leaves


@dataclass(frozen=True)
class Story:
    """Prompts along time: each is asked for from its second of new music on, the first one from 0.

    With `crossfade` the embedding goes from a prompt's to the next one's within so many seconds, which begin at the
    next one's time. `generate` and `stream` check the fields, and raise UserError.
    """

    parts: Sequence[tuple[float, SteadyPrompt]]
    crossfade: float = 0.0

    def __str__(self) -> str:
        """Its name, as `Prompt`'s."""
        told = "; ".join(f"{number_text(start)}:{prompt}" for start, prompt in self.parts)
        return f"{told}; crossfade {number_text(self.crossfade)}" if self.crossfade else told

    def steps(self) -> list[tuple[float, SteadyPrompt]]:
        """The seconds from which on something else is asked for, and what it is: nothing changes within a step."""
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
        """What is asked for from `start` to `end`, in seconds: the prompts, mixed by how long each is."""
        asked = [self._asked(place, end) - self._asked(place, start) for place in range(len(self.parts) + 1)]
        weights = [own - later for own, later in pairwise(asked)]
        least = _NOTHING * (end - start)
        heard = [(prompt, weight) for (_, prompt), weight in zip(self.parts, weights, strict=True) if weight > least]
        if len(heard) == 1:
            return heard[0][0]
        return Mixture([replace(_part(prompt), weight=weight) for prompt, weight in heard])

    def _asked(self, place: int, time: float) -> float:
        """For how many seconds up to `time` that prompt or a later one was asked for."""
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
    """As `Story.steps`; of any other prompt the one from 0 on."""
    return prompt.steps() if isinstance(prompt, Story) else [(0.0, prompt)]


def during(prompt: AnyPrompt, start: float, end: float) -> SteadyPrompt:
    """As `Story.during`; of any other prompt that one."""
    return prompt.during(start, end) if isinstance(prompt, Story) else prompt
