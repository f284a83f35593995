"""Measure the demo model: codec, control by an independent judge, Fréchet distance of CLAP embeddings, memorising."""

import argparse
from pathlib import Path

from open_musiclm import cli

BUNDLE = Path(__file__).resolve().parent / "bundle"


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--judge_corpus", type=Path, nargs="+", required=True, help="demo corpora of other soundfonts, for the judge"
    )
    parser.add_argument("--held_out_corpus", type=Path, required=True, help="a demo corpus of another seed")
    parser.add_argument("--training_tokens", type=Path, required=True, help="the token store of the training")
    parser.add_argument("--num_prompts", type=cli.positive_int, default=200, help="prompts to generate for")
    parser.add_argument("--num_samples", type=cli.positive_int, default=1, help="samples per prompt, the best counts")
    cli.add_drafts_argument(parser)
    cli.add_sketches_argument(parser)
    parser.add_argument("--duration", type=cli.positive_float, default=8.0, help="seconds of each clip")
    cli.add_inference_arguments(parser)
    parser.set_defaults(results_folder=Path("results/demo/evaluation"), checkpoint_dir=str(BUNDLE))
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.check_drafts(arguments)
    from demo.evaluation import evaluate
    from open_musiclm.files import write_json

    report = evaluate(arguments)
    path = arguments.results_folder / "evaluation.json"
    write_json(path, report)
    for section, values in report.items():
        cli.say(f"{section}:")
        for name, value in values.items():
            cli.say(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    cli.say(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, arguments())
