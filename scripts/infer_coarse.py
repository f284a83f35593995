"""Regenerate sound files from the coarse stage on, from their own CLAP and semantic tokens, to test this stage."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_coarse"))
    cli.add_regeneration_arguments(parser, "coarse")
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.regenerate(arguments, "coarse")


if __name__ == "__main__":
    cli.run(main, arguments())
