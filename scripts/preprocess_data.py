"""Turn a folder of sound into a store of CLAP, semantic and acoustic tokens. Run the same command again to resume."""

import argparse
import shlex
import sys

from open_musiclm import cli
from open_musiclm.interruption import Interrupted


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, "folder of the token store; default: results_folder of the training config")
    cli.add_config_arguments(parser)
    cli.add_tokenizer_arguments(parser, required=True)
    cli.add_trust_argument(parser)
    parser.add_argument(
        "--filter_fma", action="store_true", help="leave out FMA's unpopular experimental tracks (needs its metadata)"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config
    from open_musiclm.data.preprocess_sounds import find_usable, load_settings, preprocess_sounds

    config = load_model_config(arguments.model_config)
    settings = load_settings(arguments.training_config, arguments.results_folder)
    paths = find_usable(settings, arguments.filter_fma)
    tokenizers = (arguments.rvq_path, arguments.kmeans_path)
    report = preprocess_sounds(paths, config, settings, *tokenizers, arguments.device, arguments.trust_remote_code)
    for line in report.summary(settings.results_folder):
        cli.print_stdout(line)
    if report.interrupted:
        cli.print_stdout(f"interrupted; resume with: python {shlex.join(sys.argv)}")
        raise Interrupted(report.interrupted)


if __name__ == "__main__":
    cli.run(main, arguments())
