"""Generate one sample for each of a list of prompts: a quick listen to a model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm import cli
from open_musiclm.errors import UserError
from open_musiclm.text_files import read_lines

if TYPE_CHECKING:
    from open_musiclm.generation.inference import Written

TEST_PROMPTS = (
    "slow and peaceful solo piano in a minor key",
    "a fast fiddle tune, bright and dance-like",
    "string quartet, moderate tempo, warm and flowing",
    "a lively accordion with a steady bass",
    "calm church organ, long chords in a major key",
    "a melancholic cello melody over soft strings",
    "energetic electronic dance music with a strong beat",
    "acoustic guitar fingerpicking, gentle and quiet",
    "brass fanfare, loud and triumphant",
    "a flute and a harp playing a light melody",
)


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer"))
    parser.add_argument(
        "--prompts_file", type=Path, default=None, help="text file with a prompt on each line; default: a varied list"
    )
    cli.add_audio_prompt_argument(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", *cli.SAMPLING_FIELDS))
    parser.set_defaults(num_samples=1, num_top_matches=1)
    return parser


def main(arguments: argparse.Namespace) -> None:
    prompts = read_prompts(arguments.prompts_file) if arguments.prompts_file else list(TEST_PROMPTS)
    model, parts = cli.load_model(arguments)
    from open_musiclm.generation.inference import generate_files

    written = generate_files(model, prompts, arguments.results_folder, parts, arguments.input_audio)
    cli.tell_each(written, len(prompts), arguments.results_folder, _lines)


def _lines(written: "list[Written]") -> list[str]:
    return [f"similarity {sample.candidate.score:.3f}  {sample.path}" for sample in written]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one on each line. Raises UserError."""
    try:
        prompts = [line for _, line in read_lines(path)]
    except UserError as error:
        raise UserError(f"--prompts_file {error}") from error
    if not prompts:
        raise UserError(f"--prompts_file {path}: holds no prompt; write one on each line")
    return prompts


if __name__ == "__main__":
    cli.run(main, arguments())
