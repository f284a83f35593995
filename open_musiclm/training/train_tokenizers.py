"""Trains the CLAP quantizer and the k-means of the semantic tokens, for their two scripts."""

from dataclasses import replace
from pathlib import Path

from open_musiclm.audio import find_sounds
from open_musiclm.checkpoints import load_into, load_weights, weights_name
from open_musiclm.config import (
    ClapRvqTrainerConfig,
    HubertKmeansTrainerConfig,
    ModelConfig,
    TrainerConfig,
    TrainingConfig,
    require,
)
from open_musiclm.data.crops import tokenizer_crop
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.mert import Mert
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.training.checkpointing import STATE_NAME
from open_musiclm.training.clap_rvq import ClapRvqTrainer
from open_musiclm.training.hubert_kmeans import HubertKmeansTrainer, check_enough_frames
from open_musiclm.training.loop import Loop
from open_musiclm.training.options import RunOptions
from open_musiclm.training.run import Run
from open_musiclm.training.sound_data import sound_data
from open_musiclm.training.stage_examples import clap_crop


def train_clap_rvq(model_config: ModelConfig, training_config: TrainingConfig, options: RunOptions) -> Path | None:
    """Trains the CLAP quantizer; `options.continue_from` may also be a file of weights to begin with.

    Returns the results folder; None in all processes but the main one. Raises UserError, and Interrupted
    after a signal.
    """
    config = require(training_config, "clap_rvq_trainer_cfg", ClapRvqTrainerConfig)
    options, weights = _run_or_weights(options)
    with Run.begin(
        options, model_config, training_config, config.seed, batches_per_step=config.accumulate_batches
    ) as run:
        data = sound_data(config, [clap_crop(model_config)], run.wave_statistics())
        clap = Clap.load(model_config, run.accelerator.device)
        quantizer = ClapQuantizer(model_config.clap_rvq_cfg, clap.embedding_dim)
        if weights is not None:
            load_into(quantizer, load_weights(weights, "clap_rvq"))
        trainer = ClapRvqTrainer(run.accelerator, clap, quantizer, model_config, config)
        Loop(trainer, data, run, config).train()
        return run.folder if run.accelerator.is_main_process else None


def train_hubert_kmeans(
    model_config: ModelConfig, training_config: TrainingConfig, options: RunOptions, trust_remote_code: bool = False
) -> Path | None:
    """Fits the k-means; `trust_remote_code` lets Python code run that comes with MERT.

    Returns the file written, None in all processes but the main one. Raises UserError.
    """
    config = require(training_config, "hubert_kmeans_trainer_cfg", HubertKmeansTrainerConfig)
    outputs = [weights_name("hubert_kmeans")]
    with Run.begin(options, model_config, training_config, config.seed, outputs=outputs) as run:
        check_enough_frames(find_sounds(Path(config.folder)), model_config)
        reading = TrainerConfig(
            folder=config.folder,
            num_train_steps=config.feature_extraction_num_steps,
            batch_size=config.feature_extraction_batch_size,
            valid_frac=0.0,
            num_workers=config.num_workers,
            seed=config.seed,
        )
        crop = tokenizer_crop("semantic", model_config.window_seconds("semantic"), model_config)
        data = sound_data(reading, [crop], run.wave_statistics())
        mert = Mert.load(model_config, run.accelerator.device, trust_remote_code)
        written = HubertKmeansTrainer(run.accelerator, mert, model_config, config).train(data, run)
        return written if run.accelerator.is_main_process else None


def _run_or_weights(options: RunOptions) -> tuple[RunOptions, Path | None]:
    """A file in a checkpoint folder means that checkpoint; any other file is weights alone, given as the second."""
    path = options.continue_from
    if path is None or path.is_dir():
        return options, None
    if (path.parent / STATE_NAME).is_file():
        return replace(options, continue_from=path.parent), None
    return replace(options, continue_from=None), path
