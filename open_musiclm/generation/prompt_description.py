"""What the JSON beside a wave says of its prompt, besides the name."""

from typing import Any

from open_musiclm.generation.prompting import Mixture, SteadyPrompt, StyleSound
from open_musiclm.generation.story import AnyPrompt, Story


def description(prompt: AnyPrompt) -> dict[str, Any]:
    """Parts and weights of a prompt that `check_prompts` gave, those of a story with their times; of a text nothing."""
    if isinstance(prompt, Story):
        parts = [{"seconds": start, "parts": _parts(part)} for start, part in prompt.parts]
        return {"story": parts, "crossfade": prompt.crossfade}
    return {} if isinstance(prompt, str) else {"parts": _parts(prompt)}


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
