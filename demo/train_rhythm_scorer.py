"""Fit a rhythm scorer, which chooses among semantic candidates and samples, to stored tokens and captions."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument("--tokens_folder", type=Path, required=True, help="what scripts/preprocess_data.py wrote")
    parser.add_argument("--captions", type=Path, required=True, help='JSON lines of {"file": ..., "caption": ...}')
    parser.add_argument("--kmeans_path", type=Path, required=True, help="k-means: a checkpoint or its results folder")
    parser.add_argument("--overwrite", action="store_true", help="write over a scorer that is there")
    parser.set_defaults(results_folder=Path("results/rhythm_scorer"))
    return parser


def main(arguments: argparse.Namespace) -> None:
    from demo.rhythm.training import ScorerTraining, train_rhythm_scorer
    from open_musiclm.config import load_model_config
    from open_musiclm.devices import choose_device

    training = ScorerTraining(
        load_model_config(arguments.model_config),
        arguments.tokens_folder,
        arguments.captions,
        arguments.kmeans_path,
        arguments.results_folder,
        arguments.overwrite,
    )
    target, sounds, scorer = train_rhythm_scorer(training, choose_device(arguments.device))
    found = ", ".join(f"{value:.2f}" for value in scorer.correlations.tolist())
    cli.say(f"{sounds} sounds; correlations of texts and rhythms: {found}")
    cli.say(f"wrote {target}; give it as --rhythm_scorer_path to an inference script")


if __name__ == "__main__":
    cli.run(main, arguments())
