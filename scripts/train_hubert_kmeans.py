"""Fit the k-means over MERT's features: its clusters are the semantic tokens."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_config_arguments(parser)
    cli.add_run_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.training.run_tokenizers import train_hubert_kmeans

    train_hubert_kmeans(arguments)


if __name__ == "__main__":
    cli.run(main, arguments())
