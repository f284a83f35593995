"""Write an untrained MERT directory for train_mert to start from: an onset bank (demo/backbones/onset_bank.py).

Name it as trainer.init in the config of scripts/train_mert.py, which also gives its architecture.
"""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("target", type=Path, help="the directory to write")
    parser.add_argument("--config", type=Path, required=True, help="the config that scripts/train_mert.py will get")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the random weights")
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch

    from demo.backbones.onset_bank import start_as_onset_bank
    from open_musiclm.config.backbones import MertTrainingConfig
    from open_musiclm.config.json_files import load_section
    from open_musiclm.training.backbones.mert import build_mert

    torch.manual_seed(arguments.seed)
    model = build_mert(load_section(arguments.config, MertTrainingConfig).architecture)
    start_as_onset_bank(model)
    model.save_pretrained(arguments.target)
    cli.print_stdout(f"wrote {arguments.target}; name it as trainer.init in {arguments.config}")


if __name__ == "__main__":
    cli.run(main, arguments())
