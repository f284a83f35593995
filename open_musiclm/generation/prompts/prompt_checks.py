"""Checks of prompts, and their simplest form: equivalent prompts have the same name, and so give the same music."""

import hashlib
import math
import numbers
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from open_musiclm.audio import Sound, read_sound, statistics_of
from open_musiclm.config.prompt_text import prompt_problem
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.generation.checks import check_sound, kind_of
from open_musiclm.generation.prompts.prompting import Mixture, Prompt, SteadyPrompt, StyleSound
from open_musiclm.generation.prompts.story import AnyPrompt, Story

MOST_PARTS = 100
MOST_WEIGHT = 1e6
SHORTEST_STYLE_SECONDS = 0.5  # of sound, to tell anything of its style
_TOLERANCE = 1e-6  # seconds: differences of decimal numbers are rounded


def check_prompts(prompts: Any) -> list[AnyPrompt]:
    """One prompt or several as a list, each in its simplest form; their sound files are read. Raises UserError.

    A prompt, mixture or story that is equivalent to a plain text becomes that text.
    """
    if isinstance(prompts, (str, Prompt, Mixture, Story)):
        prompts = [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, Mapping)):
        raise UserError(f"prompts: expected a text or a list of texts, found {kind_of(prompts)}")
    checked = [_story(prompt) if isinstance(prompt, Story) else _steady(prompt) for prompt in prompts]
    if not checked:
        raise UserError("prompts: an empty list; give at least one prompt")
    return checked


def check_steady_prompts(prompts: Any) -> list[SteadyPrompt]:
    """As `check_prompts`, of prompts that do not change. Raises UserError."""
    steady: list[SteadyPrompt] = []
    for prompt in check_prompts(prompts):
        if isinstance(prompt, Story):
            raise UserError("prompts: a story changes over time; here one prompt is needed")
        steady.append(prompt)
    return steady


def check_stories(prompts: Iterable[AnyPrompt], duration: float) -> None:
    """Raises UserError if a story, or its last crossfade, is longer than the music."""
    for prompt in prompts:
        if isinstance(prompt, Story) and prompt.parts[-1][0] >= duration:
            raise UserError(
                f"story: its last prompt begins at {prompt.parts[-1][0]:g} s, beyond the duration of {duration:g} s"
            )
        if isinstance(prompt, Story) and prompt.parts[-1][0] + prompt.crossfade > duration + _TOLERANCE:
            raise UserError(
                f"story: a crossfade of {prompt.crossfade:g} s from {prompt.parts[-1][0]:g} s on is longer than the "
                f"duration of {duration:g} s"
            )


def _story(story: Story) -> AnyPrompt:
    """Equal prompts in a row as one; of a single one that prompt."""
    if not isinstance(story.parts, Iterable) or isinstance(story.parts, (str, bytes, Mapping)):
        raise UserError(f"story: expected a list of (seconds, prompt), found {kind_of(story.parts)}")
    given = [_story_part(part) for part in _most(list(story.parts), "story")]
    if given[0][0] != 0:
        raise UserError(f"story: its first prompt begins at {given[0][0]:g} s; begin with one at 0")
    for (before, _), (start, _) in pairwise(given):
        if start <= before:
            raise UserError(f"story: {start:g} s comes after {before:g} s; put the prompts in the order of time")
    parts = given[:1] + [part for before, part in pairwise(given) if str(part[1]) != str(before[1])]
    crossfade = _seconds(story.crossfade, "crossfade")
    for (before, _), (start, _) in pairwise(parts[1:]):  # the first prompt has none
        if crossfade > start - before + _TOLERANCE:
            raise UserError(f"story: a crossfade of {crossfade:g} s is longer than from {before:g} to {start:g} s")
    return parts[0][1] if len(parts) == 1 else Story(tuple(parts), crossfade)


def _story_part(part: Any) -> tuple[float, SteadyPrompt]:
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise UserError(f"story: expected pairs of seconds and a prompt, found {kind_of(part)}")
    return _seconds(part[0], "a time"), _steady(part[1])


def _steady(prompt: Any) -> SteadyPrompt:
    """A prompt that stands alone, where its weight means nothing."""
    part = _checked(prompt)
    if part.weight == 0:
        raise UserError(f"prompt {_shown(part)}: its weight is 0, and there is no other prompt")
    if isinstance(part, Prompt) and part.text is not None and part.audio is None:
        return part.text
    return replace(part, weight=1.0)


def _checked(prompt: Any) -> Prompt | Mixture:
    if isinstance(prompt, str):
        return Prompt(_text(prompt))
    if isinstance(prompt, Mixture):
        return _mixture(prompt)
    if not isinstance(prompt, Prompt):
        raise UserError(f"prompts: expected texts, Prompts, Mixtures or Stories, found {kind_of(prompt)}")
    if prompt.text is None and prompt.audio is None:
        raise UserError("prompt: has neither text nor audio; give one of them, or both")
    text = None if prompt.text is None else _text(prompt.text)
    audio = None if prompt.audio is None else _style_sound(prompt.audio)
    return Prompt(text, audio, _weight(prompt))


def _mixture(mixture: Mixture) -> Prompt | Mixture:
    """Without parts of weight 0, equal ones as one, in the order of their names; of a single part that part."""
    if not isinstance(mixture.parts, Iterable) or isinstance(mixture.parts, (str, bytes, Mapping)):
        raise UserError(f"mixture: expected a list of prompts, found {kind_of(mixture.parts)}")
    same: dict[str, list[Prompt | Mixture]] = {}
    for part in map(_checked, _most(list(mixture.parts), "mixture")):
        if part.weight > 0:
            same.setdefault(str(part), []).append(part)
    parts = [replace(same[name][0], weight=math.fsum(part.weight for part in same[name])) for name in sorted(same)]
    if not parts:
        raise UserError("mixture: all weights are 0; give at least one above 0")
    weight = _weight(mixture)
    return replace(parts[0], weight=weight) if len(parts) == 1 else Mixture(tuple(parts), weight)


def _most(parts: list[Any], kind: str) -> list[Any]:
    if not 1 <= len(parts) <= MOST_PARTS:
        raise UserError(f"{kind}: of {len(parts)} prompts; expected at least 1, at most {MOST_PARTS}")
    return parts


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise UserError(f"prompt: text: expected a text, found {kind_of(text)}")
    problem = prompt_problem(text)
    if problem is not None:
        raise UserError(f"a prompt {problem}")
    return text


def _seconds(value: Any, name: str) -> float:
    number = _number(value, f"story: {name}")
    if not 0 <= number < math.inf:
        raise UserError(f"story: {name} of {number:g} s: expected at least 0")
    return number


def _weight(prompt: Prompt | Mixture) -> float:
    number = _number(prompt.weight, f"prompt {_shown(prompt)}: weight")
    if not 0 <= number <= MOST_WEIGHT:  # NaN neither
        raise UserError(f"prompt {_shown(prompt)}: weight {number:g}: expected from 0 to {MOST_WEIGHT:g}")
    return number


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise UserError(f"{name}: expected a number, found {kind_of(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _style_sound(audio: Any) -> StyleSound:
    """A sound with a name. Warns with a UserNotice of a short one. Raises UserError, also for silence."""
    if isinstance(audio, StyleSound):
        return audio
    path = None
    if isinstance(audio, (str, Path)):
        path = Path(audio)
        audio = read_sound(path)
    sound = check_sound("prompt: audio", audio)
    shown = "prompt: audio" if path is None else f"style sound {path}"
    if statistics_of(sound.wave).silent:
        raise UserError(f"{shown}: silent, so it has no style; give another sound")
    if sound.seconds < SHORTEST_STYLE_SECONDS:
        short = f"{shown}: only {sound.seconds:.2f} s long; its style is uncertain below {SHORTEST_STYLE_SECONDS:g} s"
        warnings.warn(UserNotice(short), stacklevel=2)
    return named_sound(sound, path)


def named_sound(sound: Sound, path: Path | None = None) -> StyleSound:
    """A sound as a style, of whatever length and level; its name has the name of its file, if there is one."""
    samples = sound.wave.detach().cpu().float().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{sound.sample_hz}\n".encode() + samples).hexdigest()[:8]
    return StyleSound(sound.wave, sound.sample_hz, f"{path.name if path else 'sound'} {digest}", path)


def _shown(prompt: Prompt | Mixture) -> str:
    name = "of several" if isinstance(prompt, Mixture) else str(prompt)
    return repr(name if len(name) <= 40 else f"{name[:40]}...")
