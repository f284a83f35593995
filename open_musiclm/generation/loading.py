"""Loads the parts of a model from a bundle, or from their paths."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from open_musiclm.checkpoints.bundle import open_bundle
from open_musiclm.config import (
    GENERATION_CONFIG_NAME,
    GenerationConfig,
    ModelConfig,
    StageName,
    load_generation_config,
)
from open_musiclm.devices import choose_device
from open_musiclm.generation.bundled_adapters import apply_adapters, bundled_adapters, load_adapters
from open_musiclm.generation.paths import ModelPaths
from open_musiclm.models.stages import Stage, load_stage
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.text_correction import TEXT_CORRECTION_NAME, TextCorrection


def open_paths(paths: ModelPaths) -> tuple[ModelPaths, GenerationConfig]:
    """The paths with the bundle, if any, as a folder, with its adapters, and its generation config or the defaults.

    Raises UserError.
    """
    if paths.bundle is None:
        return paths, GenerationConfig()
    folder = open_bundle(paths.bundle)
    adapters = bundled_adapters(folder) if paths.adapters is None else paths.adapters
    config = load_generation_config(folder) if (folder / GENERATION_CONFIG_NAME).exists() else GenerationConfig()
    return replace(paths, bundle=str(folder), adapters=adapters), config


def load_parts(
    paths: ModelPaths,
    config: ModelConfig,
    stages: Sequence[StageName],
    device: str | None,
    trust_remote_code: bool = False,
) -> tuple[dict[StageName, Stage], MusicTokenizer]:
    """The stages that are named, with their adapters merged, and the tokenizers, with the bundle's text correction.

    See `Mert.load` for `trust_remote_code`. Raises UserError.
    """
    found, on = paths.resolved(stages), choose_device(device)
    loaded = load_stages(paths, config, stages, on)
    tokenizer = MusicTokenizer.load(config, found["rvq_path"], found["kmeans_path"], on, trust_remote_code)
    correction = None if paths.bundle is None else Path(paths.bundle) / TEXT_CORRECTION_NAME
    if correction is not None and os.path.lexists(correction):
        tokenizer = replace(tokenizer, text_correction=TextCorrection.load(correction, tokenizer.clap))
    return loaded, tokenizer


def load_stages(
    paths: ModelPaths, config: ModelConfig, stages: Sequence[StageName], device: torch.device
) -> dict[StageName, Stage]:
    """The stages that are named, with their adapters merged. Raises UserError."""
    found, adapters = paths.resolved(stages), load_adapters(paths.adapters or ())
    loaded = {name: load_stage(found[f"{name}_path"], name, config, device) for name in stages}
    apply_adapters(adapters, loaded, found)
    return loaded


def needed_stages(config: ModelConfig, generation_config: GenerationConfig, first: StageName) -> list[StageName]:
    """The stages from `first` on, without the fine stage if the config has `return_coarse_wave`.

    Raises UserError if the model has no such stage.
    """
    config.check_stage(first)
    needed = config.stage_names[config.stage_names.index(first) :]
    coarse_wave = generation_config.return_coarse_wave and first != "fine"
    return [name for name in needed if name != "fine" or not coarse_wave]
