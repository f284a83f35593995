"""Train the residual quantizer over CLAP's audio embeddings: its codes are the CLAP tokens."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, cli.RUN_FOLDER)
    cli.add_config_arguments(parser)
    parser.add_argument(
        "--continue_from",
        type=Path,
        default=None,
        help="a results or checkpoint folder to resume, or a file of weights to start from",
    )
    cli.add_run_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config, load_training_config
    from open_musiclm.training.train_tokenizers import train_clap_rvq

    folder = train_clap_rvq(
        load_model_config(arguments.model_config),
        load_training_config(arguments.training_config),
        cli.run_options_from(arguments, "clap_rvq", continue_option="--continue_from"),
    )
    if folder is not None:
        cli.print_stdout(f"wrote the CLAP quantizer to {folder}")
        configs = cli.repeated(arguments, "model_config", "training_config")
        cli.print_stdout(f"next: python scripts/train_hubert_kmeans.py {configs}")


if __name__ == "__main__":
    cli.run(main, arguments())
