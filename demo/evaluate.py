"""Measure the demo model: codec, prompt adherence, Fréchet distance of CLAP embeddings, memorization."""

import argparse
from pathlib import Path

from demo.defaults import BUNDLE
from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    corpora = "demo corpora of other soundfonts, which the classifier is fitted to"
    parser.add_argument("--classifier_corpus", type=Path, nargs="+", required=True, help=corpora)
    parser.add_argument("--held_out_corpus", type=Path, required=True, help="a demo corpus of another seed")
    parser.add_argument("--training_tokens", type=Path, required=True, help="the token store of the training")
    parser.add_argument(
        "--num_prompts", type=cli.positive_int, default=200, help="prompts to generate for, at least two"
    )
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", "num_samples", *cli.SAMPLING_FIELDS))
    parser.set_defaults(results_folder=Path("results/demo/evaluation"), checkpoint_dir=str(BUNDLE))
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, _ = cli.load_model(arguments)
    from demo.evaluation import EvaluationOptions, evaluate
    from open_musiclm.files import write_json

    options = EvaluationOptions(
        arguments.classifier_corpus, arguments.held_out_corpus, arguments.training_tokens,
        arguments.results_folder, arguments.num_prompts,
    )  # fmt: skip
    report = evaluate(model, options)
    path = arguments.results_folder / "evaluation.json"
    write_json(path, report)
    for section, values in report.items():
        cli.print_stdout(f"{section}:")
        for name, value in values.items():
            cli.print_stdout(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    cli.print_stdout(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, arguments())
