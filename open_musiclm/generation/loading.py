"""Loads a model from a bundle, or from the paths of its parts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from open_musiclm.checkpoints.bundle import open_bundle
from open_musiclm.config import (
    GenerationConfig,
    Precision,
    StageName,
    load_generation_config,
    load_model_config,
)
from open_musiclm.devices import choose_device
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.paths import ModelPaths
from open_musiclm.models.stages import STAGE_NAMES, load_stage
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer


def open_paths(paths: ModelPaths) -> tuple[ModelPaths, GenerationConfig]:
    """The paths with the bundle, if any, as a folder, and its generation config or else the defaults.

    Raises UserError.
    """
    if paths.bundle is None:
        return paths, GenerationConfig()
    folder = open_bundle(paths.bundle)
    return replace(paths, bundle=str(folder)), load_generation_config(folder)


def load_musiclm(
    paths: ModelPaths, stages: Sequence[StageName], device: str | None, generation_config: GenerationConfig
) -> MusicLM:
    """The model with the stages that are needed. Raises UserError."""
    found = paths.resolved(stages)
    config = load_model_config(found["model_config"])
    on = choose_device(device)
    loaded = {name: load_stage(found[f"{name}_path"], name, config, on) for name in stages}
    tokenizer = MusicTokenizer.load(config, found["rvq_path"], found["kmeans_path"], on)
    return MusicLM(config, loaded, tokenizer, generation_config)


def load_bundle(name: str | Path, device: str | None, precision: Precision | None) -> MusicLM:
    """The model of a bundle, a folder or a hub id, with its own generation config. Raises UserError."""
    paths, config = open_paths(ModelPaths(bundle=str(name)))
    if precision is not None:
        config = config.updated({"precision": precision})
    return load_musiclm(paths, STAGE_NAMES, device, config)


def needed_stages(config: GenerationConfig, first: StageName = "semantic") -> list[StageName]:
    """The stages from `first` on, without the fine one where the coarse wave is asked for."""
    names = STAGE_NAMES[STAGE_NAMES.index(first) :]
    return [name for name in names if name != "fine" or not config.return_coarse_wave]
