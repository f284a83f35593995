"""Regenerate sound files from the fine stage on, to test it alone: it is given their own CLAP and coarse tokens."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_fine"))
    cli.add_regeneration_arguments(parser, "fine")
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, parts = cli.load_model(arguments, "fine")
    from open_musiclm.generation.inference import regenerate_files

    written = regenerate_files(model, arguments.sounds, "fine", arguments.results_folder, parts)
    cli.tell_each(written, len(arguments.sounds), arguments.results_folder, lambda path: [f"wrote {path}"])


if __name__ == "__main__":
    cli.run(main, arguments())
