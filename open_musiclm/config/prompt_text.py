"""What a text must be to be a prompt."""

MOST_PROMPT_CHARACTERS = 10_000  # CLAP reads 77 tokens


def prompt_problem(text: str) -> str | None:
    """What keeps a text from being a prompt, None where nothing does."""
    if not text.strip():
        return "is empty; describe the music in a few words"
    if len(text) > MOST_PROMPT_CHARACTERS:
        return f"{text[:40]!r}...: {len(text)} characters, at most {MOST_PROMPT_CHARACTERS} are taken"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"{text[:40]!r}: not valid text (it holds half of a surrogate pair)"
    return None
