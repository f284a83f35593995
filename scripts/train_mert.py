"""Train a MERT on folders of sound by masked prediction of codec tokens: the model that semantic tokens come from."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.backbone_parser(__doc__)
    cli.add_model_config_argument(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config
    from open_musiclm.config.backbones import MertTrainingConfig
    from open_musiclm.config.json_files import load_section
    from open_musiclm.training.backbones.train import train_mert

    config = load_section(arguments.config, MertTrainingConfig)
    model_config = load_model_config(arguments.model_config)
    folder = train_mert(config, model_config, cli.run_options_from(arguments, "mert"), arguments.fine_tune_from)
    if folder is not None:
        cli.print_stdout(f"wrote {folder}")
        cli.print_stdout("next: name this directory as hubert_kmeans_cfg.model_name in a model config")


if __name__ == "__main__":
    cli.run(main, arguments())
