"""From the command lines of train_encodec, train_clap and train_mert to their training."""

import argparse
from pathlib import Path

from safetensors import SafetensorError
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from demo.backbones.filter_bank import FEWEST_CHANNELS, start_as_filter_bank
from demo.backbones.onset_bank import start_as_onset_bank
from open_musiclm import cli
from open_musiclm.checkpoints import step_folder
from open_musiclm.config import load_model_config
from open_musiclm.config.backbones import (
    BackboneTrainerConfig,
    ClapTrainingConfig,
    EncodecTrainerConfig,
    MertTrainingConfig,
)
from open_musiclm.config.json_files import Section, load_section
from open_musiclm.data.crops import Crop
from open_musiclm.data.split import split
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture
from open_musiclm.training.backbones.captioned_sounds import CaptionedSounds, collate_captioned
from open_musiclm.training.backbones.clap import WEIGHTS_FOLDER as CLAP_FOLDER
from open_musiclm.training.backbones.clap import ClapTrainer
from open_musiclm.training.backbones.clap_model import build_clap, build_feature_extractor
from open_musiclm.training.backbones.clap_text import CaptionedSound, read_captions, train_text_tokenizer
from open_musiclm.training.backbones.encodec import EncodecTrainer
from open_musiclm.training.backbones.mert import MertTrainer, build_mert
from open_musiclm.training.backbones.spectrograms import Spectrograms
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.loop import Loop
from open_musiclm.training.run import Run, RunOptions, choose_results_folder
from open_musiclm.training.sound_data import sound_data
from open_musiclm.training.trainer import Trainer


class EncodecTrainingConfig(Section):
    """The file that train_encodec reads."""

    architecture: EncodecArchitecture
    trainer: EncodecTrainerConfig


def train_encodec(arguments: argparse.Namespace) -> None:
    """Trains an EnCodec as the script's arguments say. Raises UserError."""
    config = load_section(arguments.config, EncodecTrainingConfig)
    run = _begin(arguments, config.architecture, config.trainer, "encodec")
    data = _sounds(EncodecTrainer.crops(config.architecture, config.trainer), config.trainer, run)
    trainer = EncodecTrainer(run.accelerator, config.architecture, config.trainer)
    if arguments.fine_tune_from is not None:
        trainer.begin_with(arguments.fine_tune_from)
    _train(trainer, data, run, config.trainer, "encodec_cfg")


def train_mert(arguments: argparse.Namespace) -> None:
    """Trains a MERT on the tokens of the model config's codec. Raises UserError."""
    config = load_section(arguments.config, MertTrainingConfig)
    model_config = load_model_config(arguments.model_config)
    run = _begin(arguments, config.architecture, config.trainer, "mert")
    codec = Codec.load(model_config, run.accelerator.device)
    sample_hz = model_config.hubert_kmeans_cfg.target_sample_hz
    data = _sounds(MertTrainer.crops(codec, sample_hz, config.trainer), config.trainer, run)
    model = build_mert(config.architecture)
    if config.architecture.onsets:
        start_as_onset_bank(model)
    elif config.architecture.front_end_channels >= FEWEST_CHANNELS:
        start_as_filter_bank(model)
    trainer = MertTrainer(run.accelerator, model, codec, sample_hz, config.trainer)
    if arguments.fine_tune_from is not None:
        trainer.begin_with(arguments.fine_tune_from)
    _train(trainer, data, run, config.trainer, "hubert_kmeans_cfg")


def train_clap(arguments: argparse.Namespace) -> None:
    """Trains a CLAP, new or fine-tuned, on captioned sound. Raises UserError."""
    config = load_section(arguments.config, ClapTrainingConfig)
    sounds = read_captions(Path(config.trainer.folder) / config.trainer.captions)
    run = _begin(arguments, config.architecture, config.trainer, "clap")
    model, tokenizer, extractor = _clap_to_begin_with(arguments, config, sounds, run)
    kept = config.trainer.spectrogram_folder
    spectrograms = Spectrograms(extractor, Path(kept) if kept is not None else None)
    paths = {sound.path: sound for sound in sounds}
    training, validation = split(sorted(paths), config.trainer.valid_frac, config.trainer.seed)
    parts = [
        CaptionedSounds([paths[path] for path in part], spectrograms, config.trainer.seed, random_crops)
        for part, random_crops in ((training, True), (validation, False))
    ]
    data = TrainingData(
        training=parts[0],
        validation=parts[1] if validation else None,
        validation_examples=len(validation),
        collate=collate_captioned,
        batch_size=config.trainer.batch_size,
        num_workers=config.trainer.num_workers,
    )
    trainer = ClapTrainer(run.accelerator, model, tokenizer, extractor, config.trainer)
    _train(trainer, data, run, config.trainer, "clap_rvq_cfg")


def _clap_to_begin_with(
    arguments: argparse.Namespace, config: ClapTrainingConfig, sounds: list[CaptionedSound], run: Run
) -> tuple[ClapModel, RobertaTokenizer, ClapFeatureExtractor]:
    """The model with its own tokenizer and front end; of a run that goes on, those of its checkpoint."""
    source = run.checkpoint / CLAP_FOLDER if run.checkpoint is not None else arguments.fine_tune_from
    if source is None:
        captions = [caption for sound in sounds for caption in sound.captions]
        tokenizer = train_text_tokenizer(captions, config.architecture.vocabulary_size)
        model = build_clap(config.architecture, len(tokenizer), config.trainer.initial_logit_scale)
        return model, tokenizer, build_feature_extractor()
    try:
        tokenizer = RobertaTokenizer.from_pretrained(source)
        return ClapModel.from_pretrained(source), tokenizer, ClapFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--fine_tune_from {source}: not a CLAP directory: {reason}") from error


def _begin(arguments: argparse.Namespace, architecture: Section, config: BackboneTrainerConfig, name: str) -> Run:
    if arguments.fine_tune_from is not None and arguments.continue_from_dir is not None:
        raise UserError("--fine_tune_from and --continue_from_dir exclude each other: new weights, or an old run")
    options = RunOptions(
        results_folder=choose_results_folder(arguments.results_folder, arguments.continue_from_dir, name),
        overwrite=arguments.overwrite,
        log_with=arguments.log_with,
        device=arguments.device,
        continue_from=arguments.continue_from_dir,
        continue_from_step=arguments.continue_from_step,
    )
    return Run.begin(options, architecture, config, config.seed, config.precision)


def _sounds(crops: list[Crop], config: BackboneTrainerConfig, run: Run) -> TrainingData:
    return sound_data(
        Path(config.folder),
        crops,
        config.batch_size,
        config.num_workers,
        config.valid_frac,
        config.seed,
        run.wave_statistics(),
    )


def _train(trainer: Trainer, data: TrainingData, run: Run, config: BackboneTrainerConfig, section: str) -> None:
    finished = Loop(trainer, data, run, config).train()
    if finished and run.accelerator.is_main_process:
        written = step_folder(run.folder, config.num_train_steps) / trainer.name
        cli.say(f"wrote {written}")
        cli.say(f"next: name this directory as {section}.model_name in a model config")
