"""Tokens whose ids are the index of their own time step in the file, at the real rates."""

import torch
from torch import Tensor

from helpers.small_backbones import model_config
from open_musiclm.config import ClapRvqConfig, EncodecConfig, GlobalConfig, HubertKmeansConfig, ModelConfig
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import StoreDescription
from open_musiclm.tokens import StreamName, token_streams

SIZE = 8192
FINGERPRINTS = {"clap_rvq": "a", "hubert_kmeans": "b"}


def time_config(
    semantic: float = 2.0, coarse: float = 1.2, fine: float = 0.8, clap: float = 2.0, semantic_hz: int = 50
) -> ModelConfig:
    """Windows in seconds; codebooks large enough for time indices of a minute."""
    windows = GlobalConfig(
        semantic_audio_length_seconds=semantic,
        coarse_audio_length_seconds=coarse,
        fine_audio_length_seconds=fine,
        clap_audio_length_seconds=clap,
        num_coarse_quantizers=2,
        num_fine_quantizers=3,
    )
    return model_config(
        windows,
        ClapRvqConfig(rq_num_quantizers=2, codebook_size=SIZE),
        HubertKmeansConfig(
            codebook_size=SIZE, output_hz=semantic_hz, seq_len_multiple_of=320, target_sample_hz=320 * semantic_hz
        ),
        EncodecConfig(codebook_size=SIZE),
    )


def description(config: ModelConfig) -> StoreDescription:
    return StoreDescription(config, FINGERPRINTS)


def time_row(config: ModelConfig, seconds: int, path: str = "a.wav", first: int = 0) -> StoredTokens:
    """The tokens of a crop of `seconds` from second `first` of a file."""
    streams = token_streams(config)
    windows = int(seconds - config.global_cfg.clap_audio_length_seconds) + 1

    def framed(name: StreamName) -> Tensor:
        stream = streams[name]
        return steps(first * (stream.frame_hz or 0), stream.frames(seconds), stream.quantizers)

    clap = steps(first, windows, streams["clap"].quantizers)
    return StoredTokens(path, float(first), float(seconds), clap, framed("semantic"), framed("coarse"), framed("fine"))


def steps(first: int, count: int, quantizers: int) -> Tensor:
    """Time indices [count, quantizers] from `first` on."""
    return torch.arange(first, first + count)[:, None].expand(-1, quantizers).contiguous()
