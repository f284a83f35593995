"""From the command lines of train_clap_rvq and train_hubert_kmeans to their training."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.audio import find_sounds
from open_musiclm.checkpoints import load_into, load_weights, weights_name
from open_musiclm.config import (
    ClapRvqTrainerConfig,
    HubertKmeansTrainerConfig,
    load_model_config,
    load_training_config,
    require,
)
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.mert import Mert
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.training.checkpointing import STATE_NAME
from open_musiclm.training.clap_rvq import ClapRvqTrainer
from open_musiclm.training.hubert_kmeans import HubertKmeansTrainer, check_enough_frames
from open_musiclm.training.loop import Loop
from open_musiclm.training.run import Run, RunOptions, choose_results_folder
from open_musiclm.training.sound_data import sound_data
from open_musiclm.training.stage_trainer import clap_crop, semantic_crop


def train_clap_rvq(arguments: argparse.Namespace) -> None:
    """Trains the CLAP quantizer as the script's arguments say. Raises UserError."""
    model_config = load_model_config(arguments.model_config)
    training_config = load_training_config(arguments.training_config)
    config = require(training_config, "clap_rvq_trainer_cfg", ClapRvqTrainerConfig)
    run_before = _run_of(arguments.continue_from)
    options = RunOptions(
        results_folder=choose_results_folder(arguments.results_folder, run_before, "clap_rvq"),
        overwrite=arguments.overwrite,
        log_with=arguments.log_with,
        device=arguments.device,
        continue_from=run_before,
        continue_option="--continue_from",
    )
    run = Run.begin(options, model_config, training_config, config.seed, batches_per_step=config.accumulate_batches)
    data = sound_data(
        Path(config.folder),
        [clap_crop(model_config)],
        config.batch_size,
        config.num_workers,
        config.valid_frac,
        config.seed,
        run.wave_statistics(),
    )
    clap = Clap.load(model_config, run.accelerator.device)
    quantizer = ClapQuantizer(model_config.clap_rvq_cfg, clap.embedding_dim)
    if arguments.continue_from is not None and run_before is None:
        load_into(quantizer, load_weights(arguments.continue_from, "clap_rvq"))
    trainer = ClapRvqTrainer(run.accelerator, clap, quantizer, model_config, config)
    finished = Loop(trainer, data, run, config).train()
    if finished and run.accelerator.is_main_process:
        cli.say(f"wrote the CLAP quantizer to {run.folder}")
        configs = f"--model_config {arguments.model_config} --training_config {arguments.training_config}"
        cli.say(f"next: python scripts/train_hubert_kmeans.py {configs}")


def train_hubert_kmeans(arguments: argparse.Namespace) -> None:
    """Fits the k-means as the script's arguments say. Raises UserError."""
    model_config = load_model_config(arguments.model_config)
    training_config = load_training_config(arguments.training_config)
    config = require(training_config, "hubert_kmeans_trainer_cfg", HubertKmeansTrainerConfig)
    options = RunOptions(
        results_folder=choose_results_folder(arguments.results_folder, None, "hubert_kmeans"),
        overwrite=arguments.overwrite,
        log_with=arguments.log_with,
        device=arguments.device,
        products=(weights_name("hubert_kmeans"),),
    )
    run = Run.begin(options, model_config, training_config, config.seed)
    check_enough_frames(find_sounds(Path(config.folder)), model_config)
    crop = semantic_crop(model_config, model_config.window_seconds("semantic"))
    data = sound_data(
        Path(config.folder),
        [crop],
        config.feature_extraction_batch_size,
        config.num_workers,
        valid_frac=0.0,
        seed=config.seed,
        statistics=run.wave_statistics(),
    )
    mert = Mert.load(model_config, run.accelerator.device)
    written = HubertKmeansTrainer(run.accelerator, mert, model_config, config).train(data, run)
    if run.accelerator.is_main_process:
        cli.say(f"wrote {written}")
        configs = f"--model_config {arguments.model_config} --training_config {arguments.training_config}"
        cli.say(f"next: python scripts/train_semantic_stage.py {configs} --rvq_path RVQ --kmeans_path {run.folder}")


def _run_of(path: Path | None) -> Path | None:
    """The results or checkpoint folder that `--continue_from` means; None where it is a file of weights alone."""
    if path is None or path.is_dir():
        return path
    return path.parent if (path.parent / STATE_NAME).is_file() else None
