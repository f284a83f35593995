"""Measure how much training music the semantic stage has memorized: exact and approximate matches (MusicLM, 6)."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.cli.memorization import add_memorization_arguments, options_from


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/memorization"))
    add_memorization_arguments(parser)
    cli.add_part_arguments(parser, ("semantic",))
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.evaluation.evaluate import check_packages
    from open_musiclm.evaluation.memorization import SemanticStage, measure_memorization
    from open_musiclm.evaluation.memorization_report import PAGE_NAME, memorization_card, summary, write_report
    from open_musiclm.files import prepare_folder

    check_packages()
    prepare_folder(arguments.results_folder)
    options = options_from(arguments)
    semantic = SemanticStage.load(cli.model_paths_from(arguments), arguments.device)
    folders = {"training": arguments.tokens, "unseen": arguments.unseen_tokens}
    stores = {name: semantic.store(folder) for name, folder in folders.items() if folder is not None}
    found = {
        name: measure_memorization(semantic.stage, semantic.centroids, store, options) for name, store in stores.items()
    }
    card = memorization_card(found, options, semantic.paths)
    write_report(arguments.results_folder, card, found)
    for line in summary(card):
        cli.print_stdout(line)
    cli.print_stdout(f"wrote {arguments.results_folder / PAGE_NAME}")


if __name__ == "__main__":
    cli.run(main, arguments())
