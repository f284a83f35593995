"""The arguments that ask for an edit of a given sound instead of new music (no torch in here)."""

import argparse
import re

from open_musiclm.argument_types import positive_int
from open_musiclm.errors import UserError
from open_musiclm.generation.edits import DEFAULT_CANDIDATES, Infill

_RANGE = re.compile(r"(\d{1,9}(?:\.\d*)?)-(\d{1,9}(?:\.\d*)?)?")


def add_edit_arguments(to: argparse.ArgumentParser) -> None:
    """`--regenerate` and `--num_candidates`."""
    to.add_argument(
        "--regenerate",
        type=time_range,
        metavar="START-END",
        help="seconds of --input_audio to make anew, such as 12-18, or 12- for all that follows; the rest stays as it "
        "is; without a prompt in the style around them",
    )
    to.add_argument(
        "--num_candidates",
        type=positive_int,
        default=None,
        help=f"of --regenerate: of so many the one is kept that what follows fits best (default: {DEFAULT_CANDIDATES})",
    )


def time_range(text: str) -> tuple[float, float | None]:
    """An argparse type: START-END in seconds; without END up to the end of the sound."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: expected START-END in seconds, such as 12-18, or 12- to the end")
    start, end = float(found[1]), float(found[2]) if found[2] else None
    if end is not None and start >= end:
        raise argparse.ArgumentTypeError(f"{text}: ends before it starts")
    return start, end


def edit_from(arguments: argparse.Namespace) -> Infill | None:
    """The edit that the command line asks for, None where it asks for new music. Raises UserError."""
    if arguments.regenerate is None:
        if arguments.num_candidates is not None:
            raise UserError("--num_candidates: belongs to --regenerate, which is not given")
        return None
    if arguments.input_audio is None:
        raise UserError("--regenerate: seconds of which sound? name it with --input_audio")
    _refuse(
        arguments, "--regenerate", {"duration": "the sound keeps its length", "loudness": "the rest stays as it is"}
    )
    start, end = arguments.regenerate
    return Infill(arguments.input_audio, start, end, arguments.num_candidates or DEFAULT_CANDIDATES)


def _refuse(arguments: argparse.Namespace, flag: str, reasons: dict[str, str]) -> None:
    """Raises UserError where an argument is given that an edit leaves no room for."""
    for name, reason in reasons.items():
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name}: cannot be given beside {flag}: {reason}")
