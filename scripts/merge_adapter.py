"""Merge LoRA adapters into the weights of a stage, and write them as one checkpoint."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument("--stage", choices=cli.STAGE_NAMES, required=True, help="the stage")
    parser.add_argument(
        "--base_path", type=Path, required=True, help="weights of the stage: a checkpoint, or a folder with one"
    )
    cli.add_adapter_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config
    from open_musiclm.generation.bundled_adapters import write_merged

    cli.require_arguments(arguments, ["adapter_path"])
    adapters = cli.adapter_paths_from(arguments) or []
    config = load_model_config(arguments.model_config)
    write_merged(arguments.stage, config, arguments.base_path, adapters, arguments.output)
    cli.print_stdout(f"wrote {arguments.output}; give it as --{arguments.stage}_path")


if __name__ == "__main__":
    cli.run(main, arguments())
