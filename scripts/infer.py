"""Generate one sample for each of a list of prompts: a quick listen to a model."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.generation.prompts import VARIED_PROMPTS, read_prompts
from open_musiclm.prompt_arguments import add_prompt_arguments, prompts_from


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer"))
    parser.add_argument(
        "--prompts_file", type=Path, default=None, help="text file with a prompt on each line; default: a varied list"
    )
    add_prompt_arguments(parser)
    cli.add_audio_prompt_argument(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", *cli.SAMPLING_FIELDS))
    parser.set_defaults(num_samples=1, num_top_matches=1)
    return parser


def main(arguments: argparse.Namespace) -> None:
    texts = read_prompts(arguments.prompts_file) if arguments.prompts_file else VARIED_PROMPTS
    prompts = prompts_from(arguments, texts)
    model, parts = cli.load_model(arguments)
    from open_musiclm.generation.inference import generate_files

    written = generate_files(model, prompts, arguments.results_folder, parts, arguments.input_audio)
    cli.tell_each(written, len(prompts), arguments.results_folder, lambda samples: map(str, samples))


if __name__ == "__main__":
    cli.run(main, arguments())
