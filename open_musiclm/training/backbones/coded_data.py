"""Training data of a decoder: crops of sound, with stored codes or with those of a token store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from open_musiclm.audio import find_sounds
from open_musiclm.checkpoints.fingerprints import fingerprint_of
from open_musiclm.config import ModelConfig
from open_musiclm.config.codecs import VocosTrainerConfig
from open_musiclm.data.failures import SoundFailure
from open_musiclm.data.split import split_folder
from open_musiclm.data.token_dataset import split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.data.unreadable_sounds import print_unreadable
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.training.backbones.code_sources import CachedCodes, TokenStoreCodes
from open_musiclm.training.backbones.coded_sounds import CodedSounds, CodeSource, collate_coded
from open_musiclm.training.backbones.vocos import VocosTrainer
from open_musiclm.training.data_stream import TrainingData


def cached_data(codec: Codec, config: VocosTrainerConfig, accelerator: Accelerator) -> TrainingData:
    """Crops of the files below `folder`, some of them for validation (see `split_folder`).

    Codes that are not kept yet are computed first. Raises UserError.
    """
    if config.codes_folder is None:
        raise UserError("trainer: codes_folder: missing; name a folder for the codes, or a token_store")
    codes = CachedCodes(Path(config.codes_folder), codec)
    paths = sorted(find_sounds(Path(config.folder)))
    print_unreadable(Path(config.folder))
    codes.add(paths, accelerator)
    training, validation = split_folder(codes.paths, Path(config.folder), config.valid_frac, config.seed)
    places = {path: place for place, path in enumerate(codes.paths)}
    sides = [places[path] for path in training], [places[path] for path in validation]
    return _data(codes, sides, codec, config, codes.failures)


def token_store_data(
    codec: Codec, store: TokenStore, config: VocosTrainerConfig, model_config: ModelConfig
) -> TrainingData:
    """Crops of the rows of a token store, whose sound files lie below `folder`. Raises UserError, also if the
    tokens are those of changed sound or of another codec."""
    if store.description.crops.get("augment") is not None:
        raise UserError(
            f"trainer: token_store: {store.folder}: its tokens are of changed sound (data_preprocessor_cfg.augment), "
            "which no file holds; preprocess without augment into another folder, or name a codes_folder"
        )
    store.description.check_fingerprints(store.folder, {"encodec": fingerprint_of(codec.model.state_dict())})
    codes = TokenStoreCodes(store, Path(config.folder), model_config.encodec_cfg.output_hz)
    return _data(codes, split_rows(store, config.valid_frac, config.seed), codec, config, ())


def _data(
    codes: CodeSource,
    sides: tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray],
    codec: Codec,
    config: VocosTrainerConfig,
    unusable: Sequence[SoundFailure],
) -> TrainingData:
    crop, (training, validation) = VocosTrainer.crop(codec, config), sides
    held_out = CodedSounds(codes, validation, crop, codec.hop, config.seed, False) if len(validation) else None
    return TrainingData(
        training=CodedSounds(codes, training, crop, codec.hop, config.seed, True),
        validation=held_out,
        validation_examples=len(validation),
        collate=collate_coded,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        unusable=unusable,
    )
