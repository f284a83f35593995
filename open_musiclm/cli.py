"""What the scripts share: argument groups, and how errors reach the person at the terminal.

Imports nothing heavy, so that every script answers `--help` at once; scripts import torch inside `main`.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from open_musiclm.errors import UserError

MISUSE = 2
INTERRUPTED = 130


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the options that every script has: `--device` and `--results_folder`."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    result.add_argument(
        "--device", default=None, help="cuda, cuda:1, mps or cpu; without it the best one there is is taken"
    )
    result.add_argument("--results_folder", type=Path, default=None, help="folder that everything is written to")
    return result


def add_config_arguments(to: argparse.ArgumentParser) -> None:
    """`--model_config` and `--training_config`, both required."""
    add_model_config_argument(to)
    to.add_argument("--training_config", type=Path, required=True, help="JSON file with the training config")


def add_model_config_argument(to: argparse.ArgumentParser) -> None:
    """`--model_config`, required."""
    to.add_argument("--model_config", type=Path, required=True, help="JSON file with the model config")


def add_tokenizer_arguments(to: argparse.ArgumentParser, required: bool) -> None:
    """`--rvq_path` and `--kmeans_path`: the CLAP quantizer and the k-means of the semantic tokens."""
    to.add_argument("--rvq_path", type=Path, required=required, help="CLAP RVQ: a checkpoint or its results folder")
    to.add_argument("--kmeans_path", type=Path, required=required, help="k-means: a checkpoint or its results folder")


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser) -> None:
    """Parses the command line and runs `main`; misuse ends with one clear line and exit status 2."""
    parsed = arguments.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        main(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(MISUSE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0 (seconds, hours)."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def prompt(text: str) -> str:
    """An argparse type: a prompt that holds at least one visible character."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the prompt is empty; describe the music in a few words")
    return text


def say(line: str) -> None:
    """Tells the person at the terminal what happened, at once."""
    print(line, flush=True)
