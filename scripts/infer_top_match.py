"""Generate several samples for each prompt, and keep the best by CLAP similarity."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_top_match"))
    parser.add_argument("prompts", nargs="*", type=cli.prompt, metavar="prompt", help="a description of the music")
    cli.add_prompt_arguments(parser)
    cli.add_audio_prompt_argument(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(
        parser, (*cli.LENGTH_FIELDS, *cli.SEARCH_FIELDS, *cli.SAMPLING_FIELDS, *cli.OUTPUT_FIELDS)
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    prompts = cli.prompts_from(arguments, arguments.prompts) or cli.no_prompt()
    model, parts = cli.load_model(arguments)
    from open_musiclm.generation.generate_files import generate_files, lines_of

    found = generate_files(model, prompts, arguments.results_folder, parts, arguments.input_audio)
    cli.print_each(found, len(prompts), arguments.results_folder, lines_of)


if __name__ == "__main__":
    cli.run(main, arguments())
