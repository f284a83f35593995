"""The prompt or story of a request, with the uploaded style sound, if any."""

from typing import Any

from open_musiclm.audio import Sound
from open_musiclm.config.prompt_text import story_parts
from open_musiclm.errors import UserError
from open_musiclm.generation.checks import kind_of
from open_musiclm.generation.prompts.prompting import Prompt
from open_musiclm.generation.prompts.story import Story


def client_prompt(prompt: Any, story: Any, crossfade: Any, style: Sound | None) -> Any:
    """The prompt or the story that a client sent, None for what it left out; `check_prompts` checks what is in it.

    A story is a text as that of `--story`, and has the style sound in each of its prompts. Raises UserError.
    """
    if story is None:
        if crossfade is not None:
            raise UserError("crossfade: there is no story whose prompts it could fade")
        if prompt is None and style is None:
            raise UserError("no prompt: describe the music in a few words, or give a style sound or a story")
        return _styled(prompt, style)
    if prompt is not None:
        raise UserError("story: has all prompts in it; leave the prompt out")
    if not isinstance(story, str):
        raise UserError(f"story: expected a text as '0:calm piano; 15:fast violins', found {kind_of(story)}")
    try:
        parts = story_parts(story)
    except ValueError as error:
        raise UserError(f"story: {error}") from error
    return Story([(seconds, _styled(text, style)) for seconds, text in parts], 0.0 if crossfade is None else crossfade)


def _styled(prompt: Any, style: Sound | None) -> Any:
    return prompt if style is None else Prompt(prompt, style)
