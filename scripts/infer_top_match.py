"""Generate several samples for each prompt, and keep those that are closest to it, as CLAP hears."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.errors import UserError


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_top_match"))
    parser.add_argument("prompts", nargs="+", type=cli.prompt, metavar="prompt", help="a description of the music")
    parser.add_argument("--num_samples", type=cli.positive_int, default=4, help="samples to choose from, per prompt")
    parser.add_argument("--num_top_matches", type=cli.positive_int, default=1, help="samples to keep, per prompt")
    cli.add_drafts_argument(parser)
    cli.add_sketches_argument(parser)
    cli.add_prompt_arguments(parser)
    cli.add_inference_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    if arguments.num_top_matches > arguments.num_samples:
        raise UserError(
            f"--num_top_matches {arguments.num_top_matches} is above --num_samples {arguments.num_samples}; "
            "raise --num_samples"
        )
    cli.check_drafts(arguments)
    from open_musiclm.generation import inference

    model = inference.load_musiclm(arguments, inference.needed_stages(arguments))
    if arguments.num_sketches is not None and model.listener.ear is None:
        raise UserError(
            "--num_sketches: takes an ear for rhythm to choose; give --ear_path, or a bundle that holds one"
        )
    samples, drafts, sketches = arguments.num_samples, arguments.num_drafts, arguments.num_sketches
    for candidates in inference.generate_candidates(model, arguments.prompts, arguments, samples, drafts, sketches):
        cli.say(f"{candidates[0].prompt!r}:")
        for rank, candidate in enumerate(candidates[: arguments.num_top_matches], start=1):
            path = inference.write_candidate(model, candidate, rank, arguments)
            cli.say(f"  {candidate.heard}  {path}")


if __name__ == "__main__":
    cli.run(main, arguments())
