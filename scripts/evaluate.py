"""Compare folders of generated music with reference music: FAD, KAD, MAD, CLAP score and others, on one page."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.cli.evaluation import (
    add_evaluation_arguments,
    check_arguments,
    measures_from,
    named_models,
    options_from,
)


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/evaluation"))
    add_evaluation_arguments(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(
        parser, (*cli.LENGTH_FIELDS, *cli.SEARCH_FIELDS, *cli.SAMPLING_FIELDS, *cli.OUTPUT_FIELDS)
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.evaluation.clips import read_prompts
    from open_musiclm.evaluation.evaluate import CARD_NAME, PAGE_NAME, check_packages, evaluate, summary
    from open_musiclm.evaluation.generated import generate_set
    from open_musiclm.evaluation.set_names import GENERATED

    check_packages()
    check_arguments(arguments)
    folders, parts = arguments.folders, named_models(arguments)
    if arguments.prompts is not None:
        prompts = read_prompts(arguments.prompts, arguments.num_prompts)
        model, parts = cli.load_model(arguments)
        folders = [generate_set(model, prompts, arguments.results_folder / GENERATED, parts), *folders]
        del model
    evaluation = evaluate(measures_from(arguments), options_from(arguments, folders, parts))
    for line in summary(evaluation):
        cli.print_stdout(line)
    cli.print_stdout(
        f"wrote {arguments.results_folder / PAGE_NAME}, and all figures to {arguments.results_folder / CARD_NAME}"
    )


if __name__ == "__main__":
    cli.run(main, arguments())
