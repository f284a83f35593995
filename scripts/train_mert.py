"""Train a MERT on folders of sound by masked prediction of codec tokens: the model that semantic tokens come from."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the architecture and the trainer")
    cli.add_model_config_argument(parser)
    cli.add_continue_arguments(parser)
    cli.add_run_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.training.backbones.run import train_mert

    train_mert(arguments)


if __name__ == "__main__":
    cli.run(main, arguments())
