"""Train the coarse stage: CLAP and semantic tokens to the first EnCodec codebooks."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_config_arguments(parser)
    cli.add_tokenizer_arguments(parser, required=False)
    cli.add_continue_arguments(parser)
    cli.add_run_arguments(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.training.run_stage import train_stage

    train_stage("coarse", arguments)


if __name__ == "__main__":
    cli.run(main, arguments())
