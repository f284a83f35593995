"""Trains the backbones: EnCodec, the spectral codec, Vocos, CLAP and MERT, for the scripts of these names.

Each function returns the directory of the trained model; None in all processes but the main one. It raises Interrupted
where a signal ended the run, after everything was saved.
"""

from pathlib import Path

from pydantic import Field, model_validator
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.checkpoints import step_folder
from open_musiclm.config import ModelConfig
from open_musiclm.config.backbones import (
    RANDOM_INIT,
    BackboneTrainerConfig,
    ClapTrainingConfig,
    EncodecTrainerConfig,
    MertTrainingConfig,
)
from open_musiclm.config.codecs import SpectralCodecTrainerConfig, VocosShape, VocosTrainerConfig
from open_musiclm.config.json_files import Section
from open_musiclm.data.captions import CaptionedSound, read_captions
from open_musiclm.data.split import split_folder
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap_directory import ClapDirectory
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture
from open_musiclm.tokenizers.spectral_codec import SpectralArchitecture
from open_musiclm.training.backbones.captioned_sounds import CaptionedSounds, collate_captioned
from open_musiclm.training.backbones.clap import ClapTrainer
from open_musiclm.training.backbones.clap_model import (
    build_clap,
    build_feature_extractor,
    clap_widths,
    train_text_tokenizer,
)
from open_musiclm.training.backbones.coded_data import cached_data, token_store_data
from open_musiclm.training.backbones.encodec import EncodecTrainer
from open_musiclm.training.backbones.mert import MertTrainer, build_mert
from open_musiclm.training.backbones.spectral_codec import SpectralCodecTrainer
from open_musiclm.training.backbones.spectrograms import Spectrograms
from open_musiclm.training.backbones.vocos import VocosTrainer, vocos_architecture
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.loop import Loop
from open_musiclm.training.options import RunOptions
from open_musiclm.training.run import Run
from open_musiclm.training.sound_data import sound_data
from open_musiclm.training.trainer import Trainer


class EncodecTrainingConfig(Section):
    """The file that train_encodec reads."""

    architecture: EncodecArchitecture = Field(description="Shape of the model.")
    trainer: EncodecTrainerConfig = Field(description="How it is trained.")

    @model_validator(mode="after")
    def _crop_fits(self) -> "EncodecTrainingConfig":
        self.trainer.check_crop(self.architecture.sample_hz, self.architecture.hop)
        return self


def train_encodec(config: EncodecTrainingConfig, options: RunOptions, fine_tune_from: Path | None) -> Path | None:
    """Trains an EnCodec, new or from the directory `fine_tune_from`. Raises UserError."""
    with _begin(options, config.architecture, config.trainer) as run:
        crops = EncodecTrainer.crops(config.architecture, config.trainer)
        data = sound_data(config.trainer, crops, run.wave_statistics())
        trainer = EncodecTrainer(run.accelerator, config.architecture, config.trainer)
        if fine_tune_from is not None:
            trainer.start_from(fine_tune_from)
        return _train(trainer, data, run, config.trainer)


class SpectralCodecTrainingConfig(Section):
    """The file that train_spectral_codec reads."""

    architecture: SpectralArchitecture = Field(description="Shape of the model.")
    trainer: SpectralCodecTrainerConfig = Field(description="How it is trained.")


def train_spectral_codec(
    config: SpectralCodecTrainingConfig, options: RunOptions, fine_tune_from: Path | None
) -> Path | None:
    """Trains a spectral codec, new or from the directory `fine_tune_from`. Raises UserError."""
    with _begin(options, config.architecture, config.trainer) as run:
        crops = SpectralCodecTrainer.crops(config.architecture, config.trainer)
        data = sound_data(config.trainer, crops, run.wave_statistics())
        trainer = SpectralCodecTrainer(run.accelerator, config.architecture, config.trainer)
        if fine_tune_from is not None:
            trainer.start_from(fine_tune_from)
        elif config.trainer.init != RANDOM_INIT and run.checkpoint is None:
            trainer.fit_linear_maps(data)
        return _train(trainer, data, run, config.trainer)


class VocosTrainingConfig(Section):
    """The file that train_vocos reads."""

    architecture: VocosShape = Field(description="Shape of the decoder.")
    trainer: VocosTrainerConfig = Field(description="How it is trained.")


def train_vocos(
    config: VocosTrainingConfig, model_config: ModelConfig, options: RunOptions, fine_tune_from: Path | None
) -> Path | None:
    """Trains a Vocos decoder for the model config's codec, new or from the directory `fine_tune_from`.

    Raises UserError.
    """
    with _begin(options, config.architecture, config.trainer) as run:
        codec = Codec.load_without_decoder(model_config, run.accelerator.device)  # the config names this run's result
        trainer = VocosTrainer(run.accelerator, codec, vocos_architecture(config.architecture, codec), config.trainer)
        if fine_tune_from is not None:
            trainer.start_from(fine_tune_from)
        if config.trainer.token_store is None:
            data = cached_data(codec, config.trainer, run.accelerator)
        else:
            store = TokenStore(Path(config.trainer.token_store), model_config)
            data = token_store_data(codec, store, config.trainer, model_config)
        return _train(trainer, data, run, config.trainer)


def train_mert(
    config: MertTrainingConfig, model_config: ModelConfig, options: RunOptions, fine_tune_from: Path | None
) -> Path | None:
    """Trains a MERT on the tokens of the model config's codec, new, as `init` says, or from the directory
    `fine_tune_from`. Raises UserError."""
    with _begin(options, config.architecture, config.trainer) as run:
        codec = Codec.load(model_config, run.accelerator.device)
        sample_hz = model_config.hubert_kmeans_cfg.target_sample_hz
        data = sound_data(config.trainer, MertTrainer.crops(codec, sample_hz, config.trainer), run.wave_statistics())
        trainer = MertTrainer(run.accelerator, build_mert(config.architecture), codec, sample_hz, config.trainer)
        if fine_tune_from is not None:
            trainer.start_from(fine_tune_from)
        elif config.trainer.init != RANDOM_INIT and run.checkpoint is None:
            trainer.start_from(Path(config.trainer.init))
        return _train(trainer, data, run, config.trainer)


def train_clap(config: ClapTrainingConfig, options: RunOptions, fine_tune_from: Path | None) -> Path | None:
    """Trains a CLAP on captioned sound, new or from the directory `fine_tune_from`. Raises UserError."""
    sounds = read_captions(Path(config.trainer.folder) / config.trainer.captions)
    with _begin(options, config.architecture, config.trainer) as run:
        source = run.checkpoint / ClapTrainer.name if run.checkpoint is not None else fine_tune_from
        model, tokenizer, extractor = _new_clap(config, sounds) if source is None else _clap_of(source, config)
        data = _captioned_data(config, sounds, extractor)
        return _train(
            ClapTrainer(run.accelerator, model, tokenizer, extractor, config.trainer), data, run, config.trainer
        )


def _new_clap(
    config: ClapTrainingConfig, sounds: list[CaptionedSound]
) -> tuple[ClapModel, RobertaTokenizer, ClapFeatureExtractor]:
    """A CLAP with random weights, and a vocabulary of the captions."""
    captions = [caption for sound in sounds for caption in sound.captions]
    tokenizer = train_text_tokenizer(captions, config.architecture.vocabulary_size)
    model = build_clap(config.architecture, len(tokenizer), config.trainer.initial_logit_scale)
    return model, tokenizer, build_feature_extractor()


def _clap_of(source: Path, config: ClapTrainingConfig) -> tuple[ClapModel, RobertaTokenizer, ClapFeatureExtractor]:
    """The CLAP of a directory. Raises UserError, also if it has another architecture than the config."""
    parts = ClapDirectory(source, "--fine_tune_from").load()
    found, wanted = clap_widths(parts.model.config), config.architecture.model_dump()
    differing = [f"{key} {value}, not {wanted[key]}" for key, value in found.items() if value != wanted[key]]
    if differing:
        raise UserError(f"{source}: another architecture than the config's: {', '.join(differing)}")
    return parts.model, parts.tokenizer, parts.extractor


def _captioned_data(
    config: ClapTrainingConfig, sounds: list[CaptionedSound], extractor: ClapFeatureExtractor
) -> TrainingData:
    kept = config.trainer.spectrogram_folder
    spectrograms = Spectrograms(extractor, Path(kept) if kept is not None else None)
    by_path = {sound.path: sound for sound in sounds}
    seed, folder = config.trainer.seed, Path(config.trainer.folder)
    training, validation = split_folder(sorted(by_path), folder, config.trainer.valid_frac, seed)

    def sounds_of(paths: list[Path], random_crops: bool) -> CaptionedSounds:
        return CaptionedSounds([by_path[path] for path in paths], spectrograms, seed, random_crops)

    return TrainingData(
        training=sounds_of(training, random_crops=True),
        validation=sounds_of(validation, random_crops=False) if validation else None,
        validation_examples=len(validation),
        collate=collate_captioned,
        batch_size=config.trainer.batch_size,
        num_workers=config.trainer.num_workers,
    )


def _begin(options: RunOptions, architecture: Section, config: BackboneTrainerConfig) -> Run:
    """A run. Raises UserError, also under FSDP: its shards need layers that all backbones lack."""
    run = Run.begin(options, architecture, config, config.seed, config.precision)
    if run.accelerator.is_fsdp2:
        with run:  # it is released
            raise UserError("accelerate launch --use_fsdp: only stages can be sharded; use --multi_gpu here")
    return run


def _train(trainer: Trainer, data: TrainingData, run: Run, config: BackboneTrainerConfig) -> Path | None:
    loop = Loop(trainer, data, run, config)
    loop.train()
    if not run.accelerator.is_main_process:
        return None
    return step_folder(run.folder, loop.state.step) / trainer.name
