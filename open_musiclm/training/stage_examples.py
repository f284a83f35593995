"""The training examples of a stage: what is cut out of sound for it, and the tokens of that."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig
from open_musiclm.data.crops import Crop, tokenizer_crop
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.token_dataset import TokenDataset, split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.models.stages import Ids
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokens import STAGE_STREAMS, StreamName, TokenStream
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.sound_data import sound_data

_ACOUSTIC: tuple[StreamName, ...] = ("coarse", "fine")


def clap_crop(config: ModelConfig) -> Crop:
    """CLAP's window."""
    return tokenizer_crop("clap", config.global_cfg.clap_audio_length_seconds, config)


def semantic_crop(config: ModelConfig, seconds: float) -> Crop:
    """`seconds` at MERT's rate."""
    return tokenizer_crop("semantic", seconds, config)


def acoustic_crop(config: ModelConfig, seconds: float) -> Crop:
    """`seconds` at the codec's rate."""
    return tokenizer_crop("acoustic", seconds, config)


def stage_crops(stage: StageName, config: ModelConfig) -> list[Crop]:
    """The crops of one example: CLAP's window, and the stage's window for the other streams."""
    streams, seconds = STAGE_STREAMS[stage], config.window_seconds(stage)
    crops = [clap_crop(config)]
    if "semantic" in streams:
        crops.append(semantic_crop(config, seconds))
    if any(name in streams for name in _ACOUSTIC):
        crops.append(acoustic_crop(config, seconds))
    return crops


def stage_ids(
    streams: Sequence[TokenStream], waves: Mapping[str, Float[Tensor, "batch _"]], tokenizer: MusicTokenizer
) -> list[Ids]:
    """The tokens of `stage_crops`, one sequence for each of the stage's streams."""
    found: dict[StreamName, Ids] = {"clap": tokenizer.clap_ids(waves["clap"])}
    if "semantic" in waves:
        found["semantic"] = tokenizer.semantic_ids(waves["semantic"])
    if "acoustic" in waves:
        acoustic = tokenizer.acoustic_ids(waves["acoustic"])
        coarse = next(stream.quantizers for stream in streams if stream.name == "coarse")
        found["coarse"], found["fine"] = acoustic[:, :, :coarse], acoustic[:, :, coarse:]
    return [found[stream.name] for stream in streams]


def acoustic_ids(streams: Sequence[TokenStream], ids: Sequence[Ids]) -> Int[Tensor, "batch time quantizers"] | None:
    """The codec's tokens among a stage's sequences; None for a stage without any. Coarse ones alone decode too."""
    parts = [tokens for stream, tokens in zip(streams, ids, strict=True) if stream.name in _ACOUSTIC]
    return torch.cat(parts, dim=2) if parts else None


def crops_data(config: StageTrainerConfig, model_config: ModelConfig, statistics: StatisticsCache) -> TrainingData:
    """Crops of a folder of sound, whose tokens are made in training. Raises UserError."""
    return sound_data(
        Path(config.folder),
        stage_crops(config.stage, model_config),
        config.batch_size,
        config.num_workers,
        config.valid_frac,
        config.seed,
        statistics,
    )


def preprocessed_data(config: StageTrainerConfig, model_config: ModelConfig) -> TrainingData:
    """Windows of a token store. Raises UserError, also where the store does not fit the config."""
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
