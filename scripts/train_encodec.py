"""Train an EnCodec of any size on folders of sound: the codec that acoustic tokens come from."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    return cli.backbone_parser(__doc__)


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config.json_files import load_section
    from open_musiclm.training.backbones.train import EncodecTrainingConfig, train_encodec

    config = load_section(arguments.config, EncodecTrainingConfig)
    folder = train_encodec(config, cli.run_options_from(arguments, "encodec"), arguments.fine_tune_from)
    if folder is not None:
        cli.print_stdout(f"wrote {folder}")
        cli.print_stdout("next: name this directory as encodec_cfg.model_name in a model config")


if __name__ == "__main__":
    cli.run(main, arguments())
