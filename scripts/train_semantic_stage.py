"""Train the semantic stage: CLAP tokens to semantic tokens."""

import argparse

from open_musiclm import cli
from open_musiclm.config import load_model_config


def arguments() -> argparse.ArgumentParser:
    return cli.stage_parser(__doc__)


def main(arguments: argparse.Namespace) -> None:
    if cli.train_stage_from(arguments, "semantic", load_model_config(arguments.model_config)) is not None:
        same = cli.repeated(arguments, "training_config", "model_config", "rvq_path", "kmeans_path")
        cli.print_stdout(f"next: python scripts/train_coarse_stage.py {same}")


if __name__ == "__main__":
    cli.run(main, arguments())
