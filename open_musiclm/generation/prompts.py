"""Prompts to try a model with: those of a text file, or a varied list (no torch in here)."""

from collections.abc import Sequence
from pathlib import Path

from open_musiclm.errors import UserError
from open_musiclm.text_files import read_lines

VARIED_PROMPTS = (
    "slow and peaceful solo piano in a minor key",
    "a fast fiddle tune, bright and dance-like",
    "string quartet, moderate tempo, warm and flowing",
    "a lively accordion with a steady bass",
    "calm church organ, long chords in a major key",
    "a melancholic cello melody over soft strings",
    "energetic electronic dance music with a strong beat",
    "acoustic guitar fingerpicking, gentle and quiet",
    "brass fanfare, loud and triumphant",
    "a flute and a harp playing a light melody",
)


def read_prompts(path: Path | None, prompts: Sequence[str] = ()) -> list[str]:
    """The prompts of the text file that --prompts_file names, one on each line; without one `prompts`.

    Raises UserError, also where both are given.
    """
    if path is None:
        return list(prompts)
    if prompts:
        raise UserError(f"--prompts_file {path}: given beside a prompt; leave one of them out")
    try:
        found = [line for _, line in read_lines(path)]
    except UserError as error:
        raise UserError(f"--prompts_file {error}") from error
    if not found:
        raise UserError(f"--prompts_file {path}: holds no prompt; write one on each line")
    return found
