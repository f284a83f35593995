"""Generate several samples for each prompt, and keep those that fit it best, by CLAP's similarity."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from demo.rhythm.arguments import add_arguments, rhythm_scorer_path, wants_rhythm
from open_musiclm import cli

if TYPE_CHECKING:
    from open_musiclm.generation.inference import Written


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/infer_top_match"))
    parser.add_argument("prompts", nargs="+", type=cli.prompt, metavar="prompt", help="a description of the music")
    cli.add_audio_prompt_argument(parser)
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", *cli.SEARCH_FIELDS, *cli.SAMPLING_FIELDS))
    add_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, parts = cli.load_model(arguments)
    request = (model, arguments.prompts, arguments.results_folder, parts, arguments.input_audio)
    if wants_rhythm(arguments):
        from demo.rhythm.combined import ClapRhythmScorer
        from demo.rhythm.search import generate_files as generate_by_rhythm

        scorer = ClapRhythmScorer.load(model, rhythm_scorer_path(arguments))
        found, scores = generate_by_rhythm(*request, scorer, arguments.num_semantic_candidates), str
    else:
        from open_musiclm.generation.inference import generate_files

        found, scores = generate_files(*request), "similarity {0.score:.3f}".format

    def lines(written: "list[Written]") -> Iterator[str]:
        yield f"{written[0].candidate.prompt!r}:"
        yield from (f"  {scores(sample.candidate)}  {sample.path}" for sample in written)

    cli.tell_each(found, len(arguments.prompts), arguments.results_folder, lines)


if __name__ == "__main__":
    cli.run(main, arguments())
