"""Checks of prompts, and their simplest form: what asks for the same has one name, and so gives the same music."""

import hashlib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_musiclm.audio import Sound, read_sound
from open_musiclm.config.prompt_text import prompt_problem
from open_musiclm.errors import UserError
from open_musiclm.generation.arguments import check_sound, kind_of
from open_musiclm.generation.prompting import AnyPrompt, Mixture, Prompt, StyleSound

MOST_PARTS = 100
MOST_WEIGHT = 1e6


def check_prompts(prompts: Any) -> list[AnyPrompt]:
    """One prompt or several as a list, each in its simplest form; their sound files are read. Raises UserError.

    What is the same as a plain text becomes that text: a prompt of nothing else, a mixture of a single one.
    """
    if isinstance(prompts, (str, Prompt, Mixture)):
        prompts = [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, Mapping)):
        raise UserError(f"prompts: expected a text or a list of texts, found {kind_of(prompts)}")
    checked = [_alone(_checked(prompt)) for prompt in prompts]
    if not checked:
        raise UserError("prompts: an empty list; give at least one prompt")
    return checked


def _alone(part: Prompt | Mixture) -> AnyPrompt:
    """A part that stands alone, where its weight means nothing."""
    if part.weight == 0:
        raise UserError(f"prompt {_shown(part)}: its weight is 0, and nothing else is asked for")
    if isinstance(part, Prompt) and part.text is not None and part.audio is None:
        return part.text
    return replace(part, weight=1.0)


def _checked(prompt: Any) -> Prompt | Mixture:
    if isinstance(prompt, str):
        return Prompt(_text(prompt))
    if isinstance(prompt, Mixture):
        return _mixture(prompt)
    if not isinstance(prompt, Prompt):
        raise UserError(f"prompts: expected texts, Prompts or Mixtures, found {kind_of(prompt)}")
    if prompt.text is None and prompt.audio is None:
        raise UserError("prompt: has neither text nor audio; give one of them, or both")
    text = None if prompt.text is None else _text(prompt.text)
    audio = None if prompt.audio is None else _style_sound(prompt.audio)
    return Prompt(text, audio, _weight(prompt))


def _mixture(mixture: Mixture) -> Prompt | Mixture:
    """Without parts of weight 0, equal ones as one, in the order of their names; of a single part that part."""
    if not isinstance(mixture.parts, Iterable) or isinstance(mixture.parts, (str, bytes, Mapping)):
        raise UserError(f"mixture: expected a list of prompts, found {kind_of(mixture.parts)}")
    given = list(mixture.parts)
    if not 1 <= len(given) <= MOST_PARTS:
        raise UserError(f"mixture: of {len(given)} prompts; expected at least 1, at most {MOST_PARTS}")
    same: dict[str, list[Prompt | Mixture]] = {}
    for part in map(_checked, given):
        if part.weight > 0:
            same.setdefault(str(part), []).append(part)
    parts = [replace(same[name][0], weight=math.fsum(part.weight for part in same[name])) for name in sorted(same)]
    if not parts:
        raise UserError("mixture: all weights are 0; give at least one above 0")
    weight = _weight(mixture)
    return replace(parts[0], weight=weight) if len(parts) == 1 else Mixture(tuple(parts), weight)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise UserError(f"prompt: text: expected a text, found {kind_of(text)}")
    problem = prompt_problem(text)
    if problem is not None:
        raise UserError(f"a prompt {problem}")
    return text


def _weight(prompt: Prompt | Mixture) -> float:
    weight: Any = prompt.weight
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
        raise UserError(f"prompt {_shown(prompt)}: weight: expected a number, found {kind_of(weight)}")
    try:
        number = float(weight)
    except OverflowError:
        number = math.inf
    if not 0 <= number <= MOST_WEIGHT:  # NaN neither
        raise UserError(f"prompt {_shown(prompt)}: weight {number:g}: expected from 0 to {MOST_WEIGHT:g}")
    return number


def _style_sound(audio: Any) -> StyleSound:
    """A sound with a name. Raises UserError."""
    if isinstance(audio, StyleSound):
        return audio
    path = None
    if isinstance(audio, (str, Path)):
        path = Path(audio)
        audio = read_sound(path)
    sound: Sound = check_sound("prompt: audio", audio)
    samples = sound.wave.detach().cpu().float().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{sound.sample_hz}\n".encode() + samples).hexdigest()[:8]
    return StyleSound(sound.wave, sound.sample_hz, f"{path.name if path else 'sound'} {digest}", path)


def _shown(prompt: Prompt | Mixture) -> str:
    name = "of several" if isinstance(prompt, Mixture) else str(prompt)
    return repr(name if len(name) <= 40 else f"{name[:40]}...")
