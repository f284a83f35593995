"""The training examples of a stage: what is cut out of sound for it, and the tokens of that."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig
from open_musiclm.data.caption_tokens import TextConditionedTokens, read_caption_tokens
from open_musiclm.data.captions import captions_of
from open_musiclm.data.crops import Crop, tokenizer_crop
from open_musiclm.data.sound_dataset import SoundDataset
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.text_conditioning import CaptionChoice, TextConditionedSounds, collate_text_conditioned
from open_musiclm.data.token_dataset import TokenDataset, split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.models.stages import Ids
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokens import STAGE_STREAMS, StreamName, TokenStream
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.sound_data import sound_data

_ACOUSTIC: tuple[StreamName, ...] = ("coarse", "fine")


def clap_crop(config: ModelConfig) -> Crop:
    """CLAP's window."""
    return tokenizer_crop("clap", config.global_cfg.clap_audio_length_seconds, config)


def stage_crops(stage: StageName, config: ModelConfig) -> list[Crop]:
    """The crops of one example: CLAP's window, and the stage's window for the other streams."""
    streams, seconds = STAGE_STREAMS[stage], config.window_seconds(stage)
    crops = [clap_crop(config)]
    if "semantic" in streams:
        crops.append(tokenizer_crop("semantic", seconds, config))
    if any(name in streams for name in _ACOUSTIC):
        crops.append(tokenizer_crop("acoustic", seconds, config))
    return crops


def stage_ids(
    streams: Sequence[TokenStream],
    waves: Mapping[str, Float[Tensor, "batch _"]],
    tokenizer: MusicTokenizer,
    captions: Sequence[str | None] = (),
) -> list[Ids]:
    """The tokens of `stage_crops`, one sequence for each of the stage's streams.

    Examples with a caption have its CLAP tokens, not those of their sound.
    """
    found: dict[StreamName, Ids] = {"clap": tokenizer.clap_ids(waves["clap"])}
    texts = {place: text for place, text in enumerate(captions) if text is not None}
    if texts:
        found["clap"] = found["clap"].clone()
        found["clap"][list(texts)] = tokenizer.prompt_ids(list(texts.values()))
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
    data = sound_data(config, stage_crops(config.stage, model_config), statistics, config.augment)
    return data if not config.caption_share else _text_conditioned_sounds(data, config)


def preprocessed_data(
    config: StageTrainerConfig, model_config: ModelConfig, fingerprints: Mapping[str, str]
) -> TrainingData:
    """Windows of a token store. Raises UserError, also if the store does not fit the config, or was made with weights
    of other `fingerprints`."""
    store = TokenStore(Path(config.folder), model_config)
    store.description.check_fingerprints(store.folder, fingerprints)
    training, validation = split_rows(store, config.valid_frac, config.seed)
    sets = [
        TokenDataset(store, rows, config.stage, model_config, config.seed) if len(rows) else None
        for rows in (training, validation)
    ]
    if config.augment is not None:
        raise UserError(
            f"{config.stage}_trainer_cfg: augment: changes sound, and folder holds tokens; set it in "
            "data_preprocessor_cfg and preprocess again"
        )
    conditioned = _text_conditioned_tokens(sets, config) if config.caption_share else sets
    assert conditioned[0] is not None
    return TrainingData(
        training=conditioned[0],
        validation=conditioned[1],
        validation_examples=len(validation),
        collate=collate_tokens,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )


def _text_conditioned_sounds(data: TrainingData, config: StageTrainerConfig) -> TrainingData:
    """The same examples, a share of them with a caption. Raises UserError if there are no captions."""
    folder, choice = Path(config.folder), CaptionChoice(config.caption_share, config.seed)
    sets = [data.training, *([data.validation] if data.validation is not None else [])]
    paths = [path for sounds in sets if isinstance(sounds, SoundDataset) for path in sounds.paths]
    captions = captions_of(paths, folder)
    if not captions:
        raise UserError(
            f"{config.stage}_trainer_cfg: caption_share {config.caption_share:g}: no sound below {folder} has a "
            "caption; write a .txt beside each, or a captions.jsonl"
        )
    conditioned = [
        TextConditionedSounds(sounds, captions, choice) for sounds in sets if isinstance(sounds, SoundDataset)
    ]
    validation = conditioned[1] if data.validation is not None else None
    return replace(data, training=conditioned[0], validation=validation, collate=collate_text_conditioned)


def _text_conditioned_tokens(
    sets: Sequence[TokenDataset | None], config: StageTrainerConfig
) -> list[TextConditionedTokens | None]:
    choice = CaptionChoice(config.caption_share, config.seed)
    used = next(tokens for tokens in sets if tokens is not None)
    captions = read_caption_tokens(used.store.folder, used.streams[0])
    return [None if tokens is None else TextConditionedTokens(tokens, captions, choice) for tokens in sets]


def collate_tokens(examples: Sequence[Sequence[Int[Tensor, "_ _"]]]) -> list[Ids]:
    """A batch of each sequence [batch, time, quantizers]."""
    return [torch.stack(sequences) for sequences in zip(*examples, strict=True)]
