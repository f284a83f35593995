"""Train a spectral codec on folders of sound: codes without phases, which a Vocos decoder turns into sound."""

import argparse

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    return cli.backbone_parser(__doc__)


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config.json_files import load_section
    from open_musiclm.training.backbones.train import SpectralCodecTrainingConfig, train_spectral_codec

    config = load_section(arguments.config, SpectralCodecTrainingConfig)
    folder = train_spectral_codec(config, cli.run_options_from(arguments, "spectral_codec"), arguments.fine_tune_from)
    if folder is not None:
        cli.print_stdout(f"wrote {folder}")
        cli.print_stdout("next: train its decoder with scripts/train_vocos.py")


if __name__ == "__main__":
    cli.run(main, arguments())
