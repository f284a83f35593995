"""Train a CLAP's text tower so that instruments of different families do not share codes of the CLAP quantizer.

See demo/backbones/family_separation.py. If no instrument shares them, the CLAP is copied.
"""

import argparse
from pathlib import Path

from demo.corpus.instruments import INSTRUMENTS
from open_musiclm import cli

_NAMES = [instrument.name for instrument in INSTRUMENTS]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="a clap directory")
    parser.add_argument("target", type=Path, help="the directory to write to")
    parser.add_argument("--model_config", type=Path, required=True, help="that of the quantizer")
    parser.add_argument("--rvq_path", type=Path, required=True, help="a checkpoint of the CLAP quantizer")
    parser.add_argument("--corpus", type=Path, required=True, help="a demo corpus, whose captions keep their codes")
    parser.add_argument(
        "--not_played", nargs="+", choices=_NAMES, default=[], help="more instruments, which the stages do not play"
    )
    parser.add_argument("--steps", type=cli.positive_int, default=1000)
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch

    from demo.backbones.family_separation import confused_instruments, separate_families
    from demo.corpus.corpus import read_clips
    from open_musiclm.config import load_model_config
    from open_musiclm.tokenizers.clap_directory import ClapDirectory
    from open_musiclm.tokenizers.rvq import ClapQuantizer

    torch.manual_seed(0)
    config, cpu = load_model_config(arguments.model_config), torch.device("cpu")
    clap = ClapDirectory(arguments.source, "source").load()
    quantizer = ClapQuantizer.load(arguments.rvq_path, config, cpu)
    captions = [caption for clip in read_clips(arguments.corpus).values() for caption in clip.captions]
    not_played = [instrument for instrument in INSTRUMENTS if instrument.name in arguments.not_played]
    substitutes = confused_instruments(clap, quantizer, not_played)
    for (instrument, tempo), substitute in substitutes.items():
        cli.print_stdout(
            f"{tempo} {instrument.name}: other instruments play it; its sentences go to those of {substitute.name}"
        )
    if substitutes:
        separate_families(clap, substitutes, captions, arguments.steps, cli.print_stdout)
    clap.save(arguments.target)
    cli.print_stdout(f"wrote {arguments.target}")


if __name__ == "__main__":
    cli.run(main, arguments())
