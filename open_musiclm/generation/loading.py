"""Loads a model from a bundle, or from the paths of its parts."""

from dataclasses import replace
from pathlib import Path

from open_musiclm.checkpoints.bundle import open_bundle
from open_musiclm.config import (
    GenerationConfig,
    ModelConfig,
    Precision,
    StageName,
    load_generation_config,
    load_model_config,
)
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.paths import ModelPaths
from open_musiclm.models.stages import load_stage
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
    paths: ModelPaths,
    device: str | None,
    generation_config: GenerationConfig,
    first_stage: StageName = "semantic",
    trust_remote_code: bool = False,
) -> MusicLM:
    """The model with the stages from `first_stage` on, without the fine one where the coarse wave is asked for.

    `trust_remote_code` lets Python code run that comes with MERT. Raises UserError.
    """
    config = load_model_config(paths.resolved([])["model_config"])
    stages = needed_stages(config, generation_config, first_stage)
    found = paths.resolved(stages)
    on = choose_device(device)
    loaded = {name: load_stage(found[f"{name}_path"], name, config, on) for name in stages}
    tokenizer = MusicTokenizer.load(config, found["rvq_path"], found["kmeans_path"], on, trust_remote_code)
    return MusicLM(config, loaded, tokenizer, generation_config)


def load_bundle(
    name: str | Path, device: str | None, precision: Precision | None, trust_remote_code: bool = False
) -> MusicLM:
    """The model of a bundle, a folder or a hub id, with its own generation config. Raises UserError."""
    paths, config = open_paths(ModelPaths(bundle=str(name)))
    if precision is not None:
        config = config.updated({"precision": precision})
    return load_musiclm(paths, device, config, trust_remote_code=trust_remote_code)


def needed_stages(config: ModelConfig, generation_config: GenerationConfig, first: StageName) -> list[StageName]:
    """The stages from `first` on that generation runs. Raises UserError where the model has no such stage."""
    names = config.stage_names
    if first not in names:
        raise UserError(
            f"this model has no {first} stage: its coarse stage makes all codebooks (num_fine_quantizers 0)"
        )
    needed = names[names.index(first) :]
    return [name for name in needed if name != "fine" or not generation_config.return_coarse_wave]
