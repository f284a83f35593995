"""Command-line arguments of search by rhythm (no torch in here)."""

import argparse
from pathlib import Path

from demo.defaults import BUNDLE, NUM_SEMANTIC_CANDIDATES, RHYTHM_SCORER
from open_musiclm import cli


def add_arguments(to: argparse.ArgumentParser) -> None:
    """`--num_semantic_candidates` and `--rhythm_scorer_path`, also under their earlier names."""
    to.add_argument(
        "--num_semantic_candidates",
        "--num_sketches",
        type=cli.positive_int,
        default=None,
        help="with --num_particles: the rhythm scorer first chooses among so many semantic token sequences per sample",
    )
    to.add_argument(
        "--rhythm_scorer_path",
        "--ear_path",
        type=Path,
        default=None,
        help="rhythm scorer that ranks samples beside CLAP: a file or its results folder",
    )


def wants_rhythm(arguments: argparse.Namespace) -> bool:
    """Whether one of the two arguments was given."""
    return arguments.num_semantic_candidates is not None or arguments.rhythm_scorer_path is not None


def rhythm_scorer_path(arguments: argparse.Namespace) -> Path | None:
    """The scorer that was given; with the demo's bundle its own by default, else None."""
    return arguments.rhythm_scorer_path or (RHYTHM_SCORER if _with_demo_bundle(arguments) else None)


def num_semantic_candidates(arguments: argparse.Namespace) -> int | None:
    """The number that was given; with the demo's bundle its own by default, else None."""
    return arguments.num_semantic_candidates or (NUM_SEMANTIC_CANDIDATES if _with_demo_bundle(arguments) else None)


def _with_demo_bundle(arguments: argparse.Namespace) -> bool:
    return arguments.checkpoint_dir is not None and Path(arguments.checkpoint_dir).resolve() == BUNDLE
