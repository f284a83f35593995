"""Write the mean of several checkpoints of a stage: before and after fine-tuning, or of runs from the same start."""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="weights of the stage: a checkpoint, or its folder",
    )
    cli.add_model_config_argument(parser)
    parser.add_argument("--stage", choices=cli.STAGE_NAMES, required=True, help="the stage")
    parser.add_argument(
        "--weights",
        type=cli.non_negative_float,
        nargs="+",
        default=None,
        metavar="WEIGHT",
        help="one for each checkpoint, in the same order; they are divided by their sum; default: all equal",
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config
    from open_musiclm.training.averaging import write_average

    config = load_model_config(arguments.model_config)
    shares = arguments.weights or [1.0] * len(arguments.checkpoints)
    write_average(arguments.stage, config, arguments.checkpoints, shares, arguments.output)
    cli.print_stdout(f"wrote {arguments.output}; give it as --{arguments.stage}_path")


if __name__ == "__main__":
    cli.run(main, arguments())
