"""Train or fine-tune a CLAP on sound files with captions in JSON lines: the space that prompts and music share."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the architecture and the trainer")
    cli.add_continue_arguments(parser)
    cli.add_run_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.training.backbones.run import train_clap

    train_clap(arguments)


if __name__ == "__main__":
    cli.run(main, arguments())
