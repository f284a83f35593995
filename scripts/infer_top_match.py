"""Generate several samples for each prompt, and keep those that fit it best, by CLAP's similarity."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_top_match"))
    parser.add_argument("prompts", nargs="+", type=cli.prompt, metavar="prompt", help="a description of the music")
    cli.add_audio_prompt_argument(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", *cli.SEARCH_FIELDS, *cli.SAMPLING_FIELDS))
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, parts = cli.load_model(arguments)
    from open_musiclm.generation.inference import generate_files

    folder, sound = arguments.results_folder, arguments.input_audio
    for prompt, written in zip(
        arguments.prompts, generate_files(model, arguments.prompts, folder, parts, sound), strict=True
    ):
        cli.say(f"{prompt!r}:")
        for sample in written:
            cli.say(f"  similarity {sample.candidate.score:.3f}  {sample.path}")


if __name__ == "__main__":
    cli.run(main, arguments())
