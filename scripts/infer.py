"""Generate one sample for each prompt, to try a model quickly. Or edit a sound: infilling, and variations."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.cli.prompts import VARIED_PROMPTS, read_prompts


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer"))
    parser.add_argument("prompts", nargs="*", type=cli.prompt, metavar="prompt", help="default: a varied list")
    parser.add_argument("--prompts_file", type=Path, default=None, help="text file with a prompt on each line")
    cli.add_prompt_arguments(parser)
    cli.add_audio_prompt_argument(parser)
    cli.add_edit_arguments(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, (*cli.LENGTH_FIELDS, *cli.SAMPLING_FIELDS, *cli.OUTPUT_FIELDS))
    parser.set_defaults(num_samples=1, num_top_matches=1)
    return parser


def main(arguments: argparse.Namespace) -> None:
    edit = cli.edit_from(arguments)
    texts = read_prompts(arguments.prompts_file, arguments.prompts)
    prompts = cli.prompts_from(arguments, texts, () if edit else VARIED_PROMPTS)
    if not (prompts or edit):
        cli.no_prompt()
    model, parts = cli.load_model(arguments, edit.first_stage if edit else "semantic")
    from open_musiclm.generation.edit_files import edit_files
    from open_musiclm.generation.generate_files import generate_files

    folder = arguments.results_folder
    if edit is not None:
        written = edit_files(model, edit, prompts, folder, parts)
        cli.print_each(written, edit.total(prompts), folder, lambda sample: [str(sample)])
        return
    found = generate_files(model, prompts, folder, parts, arguments.input_audio)
    cli.print_each(found, len(prompts), folder, lambda samples: map(str, samples))


if __name__ == "__main__":
    cli.run(main, arguments())
