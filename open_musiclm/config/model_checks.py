"""Checks of a model config across sections, so that impossible sizes are found before memory runs out."""

from typing import TYPE_CHECKING

from open_musiclm.config.fields import StageName
from open_musiclm.errors import UserError

if TYPE_CHECKING:
    from open_musiclm.config.model import ModelConfig

_LARGEST_STAGE = 20_000_000_000  # weights, 80 GB: many times the largest shipped stage
_MOST_POSITIONS = 1 << 17
_MOST_CODES = 1 << 22  # of all quantizers of a tokenizer
_CLAP_SPECTRUM_SAMPLES = 1024  # the window of CLAP's spectrogram
_HEAD_DIM = 64


def check_shortest_windows(config: "ModelConfig") -> None:
    """Raises ValueError if a window is too short for a token of each kind, or for CLAP's spectrogram."""
    mert, windows = config.hubert_kmeans_cfg, config.global_cfg
    for stage in ("semantic", "coarse"):
        seconds = config.window_seconds(stage)
        if round(seconds * mert.output_hz) < 2:
            raise ValueError(
                f"global_cfg: {stage}_audio_length_seconds: {seconds} s holds no semantic token; use at least "
                f"{2 / mert.output_hz} s"
            )
    shortest = _CLAP_SPECTRUM_SAMPLES / config.clap_rvq_cfg.sample_hz
    if windows.clap_audio_length_seconds < shortest:
        raise ValueError(
            f"global_cfg: clap_audio_length_seconds: {windows.clap_audio_length_seconds} s is shorter than one window "
            f"of CLAP's spectrogram; use at least {shortest:.3f} s"
        )


def check_positions(config: "ModelConfig") -> None:
    """Raises ValueError if a stage has too many positions for attention."""
    for stage in config.stage_names:
        section, sequences = config.stage(stage), _sequences(config, stage)
        *conditioning, predicted = (frames * quantizers for frames, quantizers, _ in sequences)
        in_frames = getattr(section, "token_layout", "flat") == "frames"
        positions = sequences[-1][0] if in_frames else sum(conditioning) + predicted
        if positions > _MOST_POSITIONS:
            raise ValueError(
                f"global_cfg: a window of {config.window_seconds(stage)} s has {positions} positions in the {stage} "
                f"stage; at most {_MOST_POSITIONS} are possible, for each attends to all others"
            )


def check_absolute_positions(config: "ModelConfig") -> None:
    """Raises UserError if a stage's tables of absolute positions are shorter than a sequence of its window."""
    for stage in config.stage_names:
        section, sequences = config.stage(stage), _sequences(config, stage)
        *conditioning, predicted = (frames * quantizers for frames, quantizers, _ in sequences)
        needed = max(predicted, *(tokens + 1 for tokens in conditioning))  # conditioning ends with an end id
        if section.use_absolute_position_embeddings and section.max_absolute_position_embeddings < needed:
            raise UserError(
                f"{stage}_cfg: max_absolute_position_embeddings: {section.max_absolute_position_embeddings} is below "
                f"{needed}, the tokens of the longest sequence in a window of {config.window_seconds(stage)} s"
            )


def check_sizes(config: "ModelConfig") -> None:
    """Raises ValueError if a stage or a tokenizer would have more weights than any that could be trained."""
    codes = {
        "clap_rvq_cfg: rq_num_quantizers": config.clap_rvq_cfg.rq_num_quantizers * config.clap_rvq_cfg.codebook_size,
        "global_cfg: num_coarse_quantizers + num_fine_quantizers": config.num_acoustic_quantizers
        * config.encodec_cfg.codebook_size,
    }
    for keys, count in codes.items():
        if count > _MOST_CODES:
            raise ValueError(f"{keys} times codebook_size is {count} codes; at most {_MOST_CODES} are built")
    for stage in config.stage_names:
        weights = _weights(config, stage)
        if weights > _LARGEST_STAGE:
            raise ValueError(
                f"{stage}_cfg: a stage of this dim, depth and heads, with these codebooks, has {weights:.1e} weights; "
                "at most 20 billion are built"
            )


def _sequences(config: "ModelConfig", stage: StageName) -> list[tuple[int, int, int]]:
    """Frames, quantizers and codebook size of the sequences of a stage, the predicted one last."""
    seconds, windows = config.window_seconds(stage), config.global_cfg
    clap, mert, codec = config.clap_rvq_cfg, config.hubert_kmeans_cfg, config.encodec_cfg
    semantic = (round(seconds * mert.output_hz) - 1, 1, mert.codebook_size)
    frames = round(seconds * codec.output_hz)
    coarse = (frames, windows.num_coarse_quantizers, codec.codebook_size)
    fine = (frames, windows.num_fine_quantizers, codec.codebook_size)
    others = {"semantic": [semantic], "coarse": [semantic, coarse], "fine": [coarse, fine]}[stage]
    return [(1, clap.rq_num_quantizers, clap.codebook_size), *others]


def _weights(config: "ModelConfig", stage: StageName) -> int:
    """How many weights a stage has, nearly: attention, feed-forward, tables, heads and absolute positions."""
    section, sequences = config.stage(stage), _sequences(config, stage)
    dim = section.dim
    inner = int(dim * 8 / 3) if section.use_conv_ff else 4 * dim
    block = dim * (2 * section.heads * _HEAD_DIM + 2 * _HEAD_DIM) + 3 * dim * inner
    tables = sum(2 * (codes + 1) * quantizers * dim for _, quantizers, codes in sequences)
    positions = section.max_absolute_position_embeddings * dim * len(sequences)
    return section.depth * block + tables + positions * section.use_absolute_position_embeddings
