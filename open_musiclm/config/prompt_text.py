"""What a text must be to be a prompt, or a story of prompts, and where the JSON beside a wave has no such text."""

MOST_PROMPT_CHARACTERS = 10_000  # CLAP reads 77 tokens
# The keys, in the JSON beside a wave that was made from a given sound, of that sound's path: the prompt, if any, is for
# a part of the wave only.
INFILLING_OF, VARIATION_OF, CONTINUATION_OF = "infilling_of", "variation_of", "continuation_of"
GIVEN_SOUNDS = (INFILLING_OF, VARIATION_OF, CONTINUATION_OF)


def prompt_problem(text: str) -> str | None:
    """The problem of a text as a prompt, None if it is valid."""
    if not text.strip():
        return "is empty; describe the music in a few words"
    if len(text) > MOST_PROMPT_CHARACTERS:
        return f"{text[:40]!r}...: {len(text)} characters, at most {MOST_PROMPT_CHARACTERS} are allowed"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"{text[:40]!r}: not valid text (it holds half of a surrogate pair)"
    return None


def story_parts(text: str) -> list[tuple[float, str]]:
    """The seconds and the prompts of SECONDS:PROMPT, repeated, with semicolons between. Raises ValueError."""
    parts = []
    for part in text.split(";"):
        seconds, _, prompt = part.partition(":")
        try:
            parts.append((float(seconds), prompt.strip()))
        except ValueError as error:
            raise ValueError(f"{part.strip()[:40]!r} is not SECONDS:PROMPT") from error
    return parts
