"""Train a Vocos decoder on the codes of a frozen codec: cleaner sound from the same tokens."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.backbone_parser(__doc__)
    cli.add_model_config_argument(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config
    from open_musiclm.config.json_files import load_section
    from open_musiclm.training.backbones.train import VocosTrainingConfig, train_vocos

    config = load_section(arguments.config, VocosTrainingConfig)
    model_config = load_model_config(arguments.model_config)
    options = cli.run_options_from(arguments, "vocos")
    folder = train_vocos(config, model_config, options, arguments.fine_tune_from)
    if folder is not None:
        cli.print_stdout(f"wrote {folder}")
        cli.print_stdout("next: name this directory as encodec_cfg.decoder in a model config")


if __name__ == "__main__":
    cli.run(main, arguments())
