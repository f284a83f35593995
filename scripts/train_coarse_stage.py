"""Train the coarse stage: CLAP and semantic tokens to the first EnCodec codebooks."""

import argparse

from open_musiclm import cli
from open_musiclm.config import load_model_config


def arguments() -> argparse.ArgumentParser:
    return cli.stage_parser(__doc__)


def main(arguments: argparse.Namespace) -> None:
    config = load_model_config(arguments.model_config)
    folder = cli.train_stage_from(arguments, "coarse", config)
    if folder is None:
        return
    same = cli.repeated(arguments, "model_config", "rvq_path", "kmeans_path")
    if "fine" in config.stage_names:
        training_config = cli.repeated(arguments, "training_config")
        cli.print_stdout(f"next: python scripts/train_fine_stage.py {training_config} {same}")
    else:
        paths = cli.flags({"semantic_path": "SEMANTIC", "coarse_path": folder})
        cli.print_stdout(f'next: python scripts/infer_top_match.py "PROMPT" {same} {paths}')


if __name__ == "__main__":
    cli.run(main, arguments())
