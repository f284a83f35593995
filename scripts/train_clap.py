"""Train or fine-tune a CLAP on sound files with captions in JSON lines: the space that prompts and music share."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    return cli.backbone_parser(__doc__)


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config.backbones import ClapTrainingConfig
    from open_musiclm.config.json_files import load_section
    from open_musiclm.training.backbones.train import train_clap

    config = load_section(arguments.config, ClapTrainingConfig)
    folder = train_clap(config, cli.run_options_from(arguments, "clap"), arguments.fine_tune_from)
    if folder is not None:
        cli.print_stdout(f"wrote {folder}")
        cli.print_stdout("next: name this directory as clap_rvq_cfg.model_name in a model config")


if __name__ == "__main__":
    cli.run(main, arguments())
