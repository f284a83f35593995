"""Train the residual quantizer over CLAP's audio embeddings: its codes are the CLAP tokens."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_config_arguments(parser)
    parser.add_argument(
        "--continue_from",
        type=Path,
        default=None,
        help="a results or checkpoint folder, or a file of weights, to go on from",
    )
    cli.add_run_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.training.run_tokenizers import train_clap_rvq

    train_clap_rvq(arguments)


if __name__ == "__main__":
    cli.run(main, arguments())
