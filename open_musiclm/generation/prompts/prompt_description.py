"""What the JSON beside a wave has about its prompt, besides the name, and the reverse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_musiclm.config.json_files import Section, section_from_content
from open_musiclm.config.prompt_text import GIVEN_SOUNDS
from open_musiclm.generation.prompts.prompting import Mixture, Prompt, SteadyPrompt, StyleSound
from open_musiclm.generation.prompts.story import AnyPrompt, Story


def description(prompt: AnyPrompt) -> dict[str, Any]:
    """Parts and weights of a prompt from `check_prompts`, for a story also the times; empty for a text."""
    if isinstance(prompt, Story):
        parts = [{"seconds": start, "parts": _parts(part)} for start, part in prompt.parts]
        return {"story": parts, "crossfade": prompt.crossfade}
    return {} if isinstance(prompt, str) else {"parts": _parts(prompt)}


def described_prompt(content: Mapping[str, Any], source: str) -> AnyPrompt | None:
    """The prompt in a JSON, style sounds as paths; None for an edit or a continuation, or without a prompt.

    `check_prompts` reads the sounds. Raises UserError, which names `source`, for an invalid description.
    """
    name = content.get("prompt")
    if not isinstance(name, str) or not name.strip() or not content.keys().isdisjoint(GIVEN_SOUNDS):
        return None
    described = {key: content[key] for key in _Description.model_fields if key in content}
    found = section_from_content(described, source, _Description)
    if found.story:
        return Story([(part.seconds, _mixture(part.parts)) for part in found.story], found.crossfade)
    return _mixture(found.parts) if found.parts else name


class _Part(Section):
    text: str | None = None
    audio: str | None = None
    parts: list["_Part"] | None = None
    weight: float = 1.0


class _StoryPart(Section):
    seconds: float
    parts: list[_Part]


class _Description(Section):
    parts: list[_Part] | None = None
    story: list[_StoryPart] | None = None
    crossfade: float = 0.0


def _mixture(parts: list[_Part], weight: float = 1.0) -> Mixture:
    return Mixture([_prompt(part) for part in parts], weight)


def _prompt(part: _Part) -> Prompt | Mixture:
    if part.parts:
        return _mixture(part.parts, part.weight)
    return Prompt(part.text, None if part.audio is None else Path(part.audio), part.weight)


def _parts(prompt: SteadyPrompt) -> list[dict[str, Any]]:
    return [_part(part) for part in (prompt.parts if isinstance(prompt, Mixture) else [prompt])]


def _part(part: SteadyPrompt) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part, "weight": 1.0}
    if isinstance(part, Mixture):
        return {"parts": _parts(part), "weight": part.weight}
    found: dict[str, Any] = {} if part.text is None else {"text": part.text}
    if isinstance(part.audio, StyleSound):
        found["audio"] = part.audio.name if part.audio.path is None else str(part.audio.path)
    return {**found, "weight": part.weight}
