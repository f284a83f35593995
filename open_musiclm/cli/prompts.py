"""The prompt arguments besides plain prompts."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from open_musiclm.cli.argument_types import non_negative_float
from open_musiclm.config.prompt_text import story_parts
from open_musiclm.errors import UserError
from open_musiclm.text_files import read_lines

if TYPE_CHECKING:
    from open_musiclm.generation.prompts.prompting import Prompt, SteadyPrompt
    from open_musiclm.generation.prompts.story import AnyPrompt
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


def add_prompt_arguments(to: argparse.ArgumentParser) -> None:
    """`--style_audio`, `--mix`, `--story` and `--crossfade`."""
    to.add_argument(
        "--style_audio",
        action="append",
        type=weighted_file,
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a sound file whose style is wanted, mixed into every prompt, or alone; may be repeated",
    )
    to.add_argument(
        "--mix",
        action="store_true",
        help="the prompts and the style sounds are one mixture; each prompt may end with its weight: "
        '"slow piano:2" "choir:1"',
    )
    to.add_argument(
        "--story",
        type=story_argument,
        default=None,
        metavar="STORY",
        help='prompts one after the other, each with its start in seconds: "0:calm piano; 15:fast violins"',
    )
    to.add_argument(
        "--crossfade",
        type=non_negative_float,
        default=None,
        metavar="SECONDS",
        help="seconds of the change from one prompt of the story to the next (default: 0)",
    )


def story_argument(words: str) -> list[tuple[float, str]]:
    """An argparse type: as `story_parts`."""
    try:
        return story_parts(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def weighted_file(words: str) -> tuple[Path, float]:
    """An argparse type: FILE or FILE:WEIGHT; a file of the whole name comes first."""
    name, weight = (words, 1.0) if _is_file(words) else weighted(words)
    if not name:
        raise argparse.ArgumentTypeError("no file is named")
    return Path(name), weight


def weighted(words: str) -> tuple[str, float]:
    """TEXT:WEIGHT as a pair; what does not end with a colon and a number has weight 1."""
    text, colon, number = words.rpartition(":")
    try:
        return (text, float(number)) if colon else (words, 1.0)
    except ValueError:
        return words, 1.0


def prompts_from(
    arguments: argparse.Namespace, texts: Sequence[str], otherwise: Sequence[str] = ()
) -> "list[AnyPrompt]":
    """The prompts of the command line, or `otherwise` if it has none.

    Reads their sound files. Raises UserError.
    """
    from open_musiclm.generation.prompts.prompt_checks import check_prompts
    from open_musiclm.generation.prompts.prompting import Mixture, Prompt
    from open_musiclm.generation.prompts.story import Story

    styles = [Prompt(audio=path, weight=weight) for path, weight in arguments.style_audio]
    if arguments.story is not None:
        if texts or arguments.mix:
            raise UserError("--story: contains all prompts; leave out other prompts and --mix")
        parts = [(seconds, _styled(text, styles)) for seconds, text in arguments.story]
        return check_prompts(Story(parts, arguments.crossfade or 0.0))
    if arguments.crossfade is not None:
        raise UserError("--crossfade: needs --story")
    if not (texts or styles or arguments.mix):
        texts = otherwise
    if not (texts or styles):
        return []
    if arguments.mix:
        weights = [weighted(text) for text in texts]
        return check_prompts(Mixture([*(Prompt(text, weight=weight) for text, weight in weights), *styles]))
    return check_prompts([_styled(text, styles) for text in texts] or Mixture(styles))


def no_prompt() -> NoReturn:
    """Raises the UserError of a command line without a prompt."""
    raise UserError("no prompt: describe the music in a few words, or give a --style_audio or a --story")


def _styled(text: str, styles: "Sequence[Prompt]") -> "SteadyPrompt":
    """A text with the style sounds mixed into it."""
    from open_musiclm.generation.prompts.prompting import Mixture

    return Mixture([text, *styles]) if styles else text


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # no such name can be
        return False


def read_prompts(path: Path | None, prompts: Sequence[str] = ()) -> list[str]:
    """The prompts of the text file that --prompts_file names, one on each line; without one `prompts`.

    Raises UserError, also if both are given.
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
