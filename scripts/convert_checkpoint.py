"""Turn a released checkpoint (.pt, .joblib) into safetensors with its model config inside. Nothing is unpickled."""

import argparse
from pathlib import Path

from open_musiclm import cli

KINDS = (*cli.STAGE_NAMES, "clap_rvq", "hubert_kmeans")


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument(
        "--results_folder", type=Path, default=None, help="folder of the output; default: that of the checkpoint"
    )
    parser.add_argument("checkpoint", type=Path, help="the released file")
    parser.add_argument("--kind", choices=KINDS, required=True, help="which part of the model it holds")
    parser.add_argument("--output", type=Path, default=None, help="default: the same name with .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")
    cli.add_model_config_argument(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.checkpoints.bundle import convert
    from open_musiclm.config import load_model_config

    cli.exclude_arguments(arguments, "output", "results_folder")
    checkpoint = arguments.checkpoint if arguments.checkpoint.name.strip(".") else arguments.checkpoint.resolve()
    name = checkpoint.with_suffix(".safetensors")
    if arguments.results_folder is not None:
        name = arguments.results_folder / name.name
    target = arguments.output or name
    config = load_model_config(arguments.model_config)
    cli.print_stdout(f"wrote {convert(arguments.checkpoint, arguments.kind, config, target, arguments.overwrite)}")


if __name__ == "__main__":
    cli.run(main, arguments())
