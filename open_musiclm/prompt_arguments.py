"""The arguments that say what music is asked for, besides plain prompts."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm.errors import UserError

if TYPE_CHECKING:
    from open_musiclm.generation.prompting import AnyPrompt


def add_prompt_arguments(to: argparse.ArgumentParser) -> None:
    """`--style_audio` and `--mix`."""
    to.add_argument(
        "--style_audio",
        action="append",
        type=weighted_file,
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a sound whose style is asked for, mixed into every prompt, or alone; may be given several times",
    )
    to.add_argument(
        "--mix",
        action="store_true",
        help="the prompts and the style sounds are one mixture; each prompt may end with its weight: "
        '"slow piano:2" "choir:1"',
    )


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


def prompts_from(arguments: argparse.Namespace, texts: Sequence[str]) -> "list[AnyPrompt]":
    """The prompts that the command line asks for with these texts; their sound files are read. Raises UserError."""
    from open_musiclm.generation.prompt_checks import check_prompts
    from open_musiclm.generation.prompting import Mixture, Prompt

    styles = [Prompt(audio=path, weight=weight) for path, weight in arguments.style_audio]
    if not texts and not styles:
        raise UserError("no prompt: describe the music in a few words, or give a --style_audio")
    if arguments.mix:
        parts = [Prompt(text, weight=weight) for text, weight in map(weighted, texts)]
        return check_prompts([Mixture([*parts, *styles])])
    if not styles:
        return check_prompts(texts)
    return check_prompts([Mixture([text, *styles]) for text in texts] or [Mixture(styles)])


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # no such name can be
        return False
