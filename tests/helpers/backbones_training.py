"""Trains a small EnCodec, CLAP and MERT one after the other, as their scripts do: a process, or one of several.

python tests/helpers/backbones_training.py CONFIGS_FOLDER RESULTS_FOLDER [--continue_from ANOTHER]
"""

import argparse
from pathlib import Path

import torch
from torch import distributed

from open_musiclm.training.backbones.run import train_clap, train_encodec, train_mert


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("configs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--continue_from", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, train in {"encodec": train_encodec, "clap": train_clap, "mert": train_mert}.items():
        words = {"config": given.configs / f"{name}.json", "model_config": given.configs / "model.json"}
        words |= {"results_folder": given.results / name, "overwrite": False, "log_with": "none", "device": "cpu"}
        words |= {"continue_from_dir": given.continue_from and given.continue_from / name}
        train(argparse.Namespace(**words, continue_from_step=None, fine_tune_from=None))
    if distributed.is_initialized():  # as the scripts do: its threads, left to the end of the process, may abort it
        distributed.barrier()
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
