"""Learn an ear for rhythm, which chooses among sketches and samples of music, from stored tokens and captions."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument("--tokens_folder", type=Path, required=True, help="what scripts/preprocess_data.py wrote")
    parser.add_argument("--captions", type=Path, required=True, help='JSON lines of {"file": ..., "caption": ...}')
    parser.add_argument("--kmeans_path", type=Path, required=True, help="k-means: a checkpoint or its results folder")
    parser.add_argument("--overwrite", action="store_true", help="write over an ear that is there")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from demo.rhythm.training import train_rhythm_ear

    train_rhythm_ear(arguments)


if __name__ == "__main__":
    cli.run(main, arguments())
