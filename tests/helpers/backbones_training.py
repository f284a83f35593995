"""Trains small backbones of every kind one after the other, as their scripts do: a process, or one of several.

python tests/helpers/backbones_training.py CONFIGS_FOLDER RESULTS_FOLDER [--continue_from ANOTHER]
"""

import argparse
from pathlib import Path

import torch
from torch import distributed

from open_musiclm.config import load_model_config
from open_musiclm.config.backbones import ClapTrainingConfig, MertTrainingConfig
from open_musiclm.config.json_files import load_section
from open_musiclm.training.backbones.train import (
    EncodecTrainingConfig,
    SpectralCodecTrainingConfig,
    VocosTrainingConfig,
    train_clap,
    train_encodec,
    train_mert,
    train_spectral_codec,
    train_vocos,
)
from open_musiclm.training.options import RunOptions


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("configs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--continue_from", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)

    def options(name: str) -> RunOptions:
        continue_from = given.continue_from and given.continue_from / name
        return RunOptions(name, given.results / name, log_with="none", device="cpu", continue_from=continue_from)

    train_encodec(load_section(given.configs / "encodec.json", EncodecTrainingConfig), options("encodec"), None)
    train_clap(load_section(given.configs / "clap.json", ClapTrainingConfig), options("clap"), None)
    mert = load_section(given.configs / "mert.json", MertTrainingConfig)
    train_mert(mert, load_model_config(given.configs / "model.json"), options("mert"), None)
    spectral = load_section(given.configs / "spectral_codec.json", SpectralCodecTrainingConfig)
    train_spectral_codec(spectral, options("spectral_codec"), None)
    vocos = load_section(given.configs / "vocos.json", VocosTrainingConfig)
    train_vocos(vocos, load_model_config(given.configs / "model.json"), options("vocos"), None)
    if distributed.is_initialized():  # as the scripts do: its threads, left to the end of the process, may abort it
        distributed.barrier()
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
