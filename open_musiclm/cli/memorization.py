"""The command line of the memorization measurement (no torch in here)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm.cli.argument_types import number_in, positive_int, seed, share

if TYPE_CHECKING:
    from open_musiclm.evaluation.memorization import MemorizationOptions

PROMPT_SECONDS = (0, 1, 2, 5)


def add_memorization_arguments(to: argparse.ArgumentParser) -> None:
    """Adds the arguments of the measurement."""
    to.add_argument("--tokens", type=Path, required=True, help="token store of the training")
    to.add_argument("--unseen_tokens", type=Path, default=None, help="token store of unseen music, to compare with")
    to.add_argument(
        "--prompt_seconds",
        type=number_in(int, 0, 600),
        nargs="+",
        default=list(PROMPT_SECONDS),
        help="seconds of music that the stage is given",
    )
    to.add_argument(
        "--num_examples",
        type=number_in(int, 2, 1_000_000),
        default=200,
        help="number of segments of music, one per file",
    )
    to.add_argument(
        "--false_positives", type=share, default=1e-4, help="share of wrong pairs that may match approximately"
    )
    to.add_argument("--permutations", type=positive_int, default=20, help="wrong pairs for each right one")
    to.add_argument("--seed", type=seed, default=0, help="seed of the random choices")


def options_from(arguments: argparse.Namespace) -> "MemorizationOptions":
    """The options of the command line."""
    from open_musiclm.evaluation.memorization import MemorizationOptions

    return MemorizationOptions(
        arguments.prompt_seconds,
        arguments.num_examples,
        arguments.false_positives,
        arguments.permutations,
        arguments.seed,
    )
