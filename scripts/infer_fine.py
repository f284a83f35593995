"""Regenerate sound files from the fine stage on, to judge it alone: their own CLAP and coarse tokens are given."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_fine"))
    cli.add_regeneration_arguments(parser, "fine")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.generation import inference

    for path in inference.regenerate_files(arguments, "fine"):
        cli.say(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, arguments())
