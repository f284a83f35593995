"""Train the fine stage: CLAP and coarse tokens to the remaining EnCodec codebooks."""

import argparse

from open_musiclm import cli
from open_musiclm.config import load_model_config


def arguments() -> argparse.ArgumentParser:
    return cli.stage_parser(__doc__)


def main(arguments: argparse.Namespace) -> None:
    folder = cli.train_stage_from(arguments, "fine", load_model_config(arguments.model_config))
    if folder is not None:
        same = cli.repeated(arguments, "model_config", "rvq_path", "kmeans_path")
        paths = cli.flags({"semantic_path": "SEMANTIC", "coarse_path": "COARSE", "fine_path": folder})
        cli.print_stdout(f'next: python scripts/infer_top_match.py "PROMPT" {same} {paths}')


if __name__ == "__main__":
    cli.run(main, arguments())
