"""Train the semantic stage: CLAP tokens to semantic tokens."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_config_arguments(parser)
    cli.add_tokenizer_arguments(parser, required=False)
    cli.add_continue_arguments(parser)
    cli.add_lora_argument(parser)
    cli.add_run_arguments(parser)
    cli.add_trust_argument(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config, load_training_config
    from open_musiclm.training.train_stage import TokenizerPaths, train_stage

    folder = train_stage(
        "semantic",
        load_model_config(arguments.model_config),
        load_training_config(arguments.training_config),
        cli.run_options_from(arguments, "semantic"),
        TokenizerPaths(arguments.rvq_path, arguments.kmeans_path, arguments.trust_remote_code),
        arguments.fine_tune_from,
        arguments.lora_rank,
    )
    if folder is not None:
        cli.say(f"wrote the semantic stage to {folder}")
        same = cli.repeated(arguments, "training_config", "model_config", "rvq_path", "kmeans_path")
        cli.say(f"next: python scripts/train_coarse_stage.py {same}")


if __name__ == "__main__":
    cli.run(main, arguments())
