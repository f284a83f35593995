"""From the command line of a stage's script to its training: what the three scripts share."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm import cli
from open_musiclm.config import (
    ModelConfig,
    StageName,
    StageTrainerConfig,
    load_model_config,
    load_training_config,
    require,
)
from open_musiclm.data.token_dataset import TokenDataset, split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.models.stages import Ids, build_stage, load_stage_to_train_on
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.coarse import CoarseTrainer
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.fine import FineTrainer
from open_musiclm.training.loop import Loop
from open_musiclm.training.run import Run, RunOptions, choose_results_folder
from open_musiclm.training.semantic import SemanticTrainer
from open_musiclm.training.sound_data import sound_data
from open_musiclm.training.stage_trainer import StageTools, StageTrainer

TRAINERS: dict[StageName, type[StageTrainer]] = {
    "semantic": SemanticTrainer,
    "coarse": CoarseTrainer,
    "fine": FineTrainer,
}


def train_stage(name: StageName, arguments: argparse.Namespace) -> None:
    """Trains a stage as its script's arguments say. Raises UserError."""
    model_config = load_model_config(arguments.model_config)
    training_config = load_training_config(arguments.training_config)
    config = require(training_config, f"{name}_trainer_cfg", StageTrainerConfig)
    if not config.use_preprocessed_data:
        cli.require_arguments(arguments, ["rvq_path", "kmeans_path"])
    options = stage_options(name, arguments)
    run = Run.begin(options, model_config, training_config, config.seed, config.precision, config.grad_accum_every)
    device = run.accelerator.device
    if arguments.fine_tune_from is not None:
        stage = load_stage_to_train_on(arguments.fine_tune_from, name, model_config, device)
    else:
        stage = build_stage(name, model_config)
    trainer_class = TRAINERS[name]
    data = (
        preprocessed_data(config, model_config)
        if config.use_preprocessed_data
        else crops_data(run, config, model_config)
    )
    tools = stage_tools(model_config, config, arguments, device)
    finished = Loop(trainer_class(run.accelerator, stage, tools, config), data, run, config).train()
    if finished and run.accelerator.is_main_process:
        cli.say(f"wrote the {name} stage to {run.folder}")
        cli.say(f"next: {next_command(name, arguments, run.folder)}")


def next_command(name: StageName, arguments: argparse.Namespace, results_folder: Path) -> str:
    """The command that follows the training of stage `name`."""
    paths = [f"--model_config {arguments.model_config}"]
    paths += [f"--rvq_path {arguments.rvq_path or 'RVQ'}", f"--kmeans_path {arguments.kmeans_path or 'KMEANS'}"]
    if name == "fine":
        paths += ["--semantic_path SEMANTIC", "--coarse_path COARSE", f"--fine_path {results_folder}"]
        return " ".join(['python scripts/infer_top_match.py "PROMPT"', *paths])
    following = "coarse" if name == "semantic" else "fine"
    return " ".join(
        [f"python scripts/train_{following}_stage.py --training_config {arguments.training_config}", *paths]
    )


def stage_options(name: StageName, arguments: argparse.Namespace) -> RunOptions:
    """The run that the arguments ask for: in `--results_folder`, in the folder it goes on from, or in results/."""
    if arguments.fine_tune_from is not None and arguments.continue_from_dir is not None:
        raise UserError("--fine_tune_from and --continue_from_dir exclude each other: new weights, or an old run")
    return RunOptions(
        results_folder=choose_results_folder(arguments.results_folder, arguments.continue_from_dir, name),
        overwrite=arguments.overwrite,
        log_with=arguments.log_with,
        device=arguments.device,
        continue_from=arguments.continue_from_dir,
        continue_from_step=arguments.continue_from_step,
    )


def crops_data(run: Run, config: StageTrainerConfig, model_config: ModelConfig) -> TrainingData:
    """Crops of a folder of sound, to be made tokens in training. Raises UserError."""
    return sound_data(
        Path(config.folder),
        TRAINERS[config.stage].crops(model_config),
        config.batch_size,
        config.num_workers,
        config.valid_frac,
        config.seed,
        run.wave_statistics(),
    )


def preprocessed_data(config: StageTrainerConfig, model_config: ModelConfig) -> TrainingData:
    """Windows out of a token store. Raises UserError, also where the store does not fit the config."""
    store = TokenStore(Path(config.folder), model_config)
    training, validation = split_rows(store, config.valid_frac, config.seed)
    return TrainingData(
        training=TokenDataset(store, training, config.stage, model_config, config.seed),
        validation=TokenDataset(store, validation, config.stage, model_config, config.seed) if validation else None,
        validation_examples=len(validation),
        collate=collate_tokens,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )


def collate_tokens(examples: Sequence[Sequence[Int[Tensor, "_ _"]]]) -> list[Ids]:
    """A batch of each sequence [batch, time, quantizers]."""
    return [torch.stack(sequences) for sequences in zip(*examples, strict=True)]


def stage_tools(
    model_config: ModelConfig, config: StageTrainerConfig, arguments: argparse.Namespace, device: torch.device
) -> StageTools:
    """The tokenizers where tokens are made in training, and the codec where waves are wanted. Raises UserError."""
    if not config.use_preprocessed_data:
        tokenizer = MusicTokenizer.load(model_config, arguments.rvq_path, arguments.kmeans_path, device)
        return StageTools(model_config, tokenizer, tokenizer.codec)
    wanted = config.save_reconstructed_wave and config.stage != "semantic"
    return StageTools(model_config, None, Codec.load(model_config, device) if wanted else None)
