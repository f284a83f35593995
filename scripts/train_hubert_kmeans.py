"""Fit the k-means over MERT's features: its clusters are the semantic tokens."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, cli.RUN_FOLDER)
    cli.add_config_arguments(parser)
    cli.add_run_arguments(parser)
    cli.add_trust_argument(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config, load_training_config
    from open_musiclm.training.train_tokenizers import train_hubert_kmeans

    written = train_hubert_kmeans(
        load_model_config(arguments.model_config),
        load_training_config(arguments.training_config),
        cli.run_options_from(arguments, "hubert_kmeans"),
        arguments.trust_remote_code,
    )
    if written is not None:
        cli.print_stdout(f"wrote {written}")
        configs = cli.repeated(arguments, "model_config", "training_config")
        paths = cli.flags({"rvq_path": "RVQ", "kmeans_path": written.parent})
        cli.print_stdout(f"next: python scripts/train_semantic_stage.py {configs} {paths}")


if __name__ == "__main__":
    cli.run(main, arguments())
