"""A bundle: one folder for a whole model.

It has `model_config.json`, `generation_config.json`, the trained parts, and the backbones that the config names by a
local directory. Every inference script takes such a folder, or the hub id of one, as `--checkpoint_dir`.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from open_musiclm.checkpoints import Kind, find_weights, load_weights, save_weights, weights_name
from open_musiclm.checkpoints.adapters import ADAPTERS_FOLDER, WEIGHTS_NAME, adapter_name, load_adapter, save_adapter
from open_musiclm.checkpoints.foreign import is_local
from open_musiclm.config import (
    BACKBONES,
    GENERATION_CONFIG_NAME,
    MODEL_CONFIG_NAME,
    GenerationConfig,
    ModelConfig,
    load_model_config,
)
from open_musiclm.config.json_files import read_json_object
from open_musiclm.errors import UserError, first_line
from open_musiclm.files import write_json
from open_musiclm.models.lora import merge_adapters
from open_musiclm.models.stages import load_stage
from open_musiclm.tokenizers.clap import Clap, clap_directory
from open_musiclm.tokenizers.clap_laion import read_laion
from open_musiclm.tokenizers.codec import Codec, codec_decoder_paths, codec_paths, is_local_codec
from open_musiclm.tokenizers.mert import load_centroids, mert_directory
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.tokenizers.text_correction import TEXT_CORRECTION_NAME, TextCorrection

_LAION_NAME = "laion_clap.pt"


def bundle_kinds(config: ModelConfig) -> tuple[Kind, ...]:
    """The trained parts of a model."""
    return (*config.stage_names, "clap_rvq", "hubert_kmeans")


def pack(
    model_config: Path,
    paths: Mapping[Kind, Path],
    folder: Path,
    generation_config: GenerationConfig | None = None,
    adapters: Sequence[tuple[Path, float]] = (),
    text_correction: Path | None = None,
) -> list[Path]:
    """Writes a bundle of the parts at `paths`, this project's or released ones, each checked against the config.

    Backbones that the config names by a local path are copied, but only the files that loading reads. Without a
    generation config the bundle has the defaults; `adapters` are files with their weights, `text_correction` a file of
    scripts/analyze_clap.py for this CLAP. Returns the files of the bundle. The folder is written atomically.

    Raises UserError, also if it exists and is not empty.
    """
    if os.path.lexists(folder) and (not folder.is_dir() or folder.is_symlink() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists and is not empty; name a new folder for the bundle")
    config = load_model_config(model_config)
    copied = _backbone_files(config)
    whole = folder.absolute()
    unfinished = whole.with_name(f".unfinished_{whole.name}")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for kind, path in paths.items():
            convert(path, kind, config, unfinished / weights_name(kind))
        _pack_adapters(adapters, config, unfinished)
        if text_correction is not None:
            clap = Clap.load(config, torch.device("cpu"))
            TextCorrection.load(text_correction, clap).save(unfinished / TEXT_CORRECTION_NAME, clap)
        for name, source in copied.items():
            _copy(source, unfinished / name)
        write_json(unfinished / MODEL_CONFIG_NAME, _moved(read_json_object(model_config), copied))
        write_json(unfinished / GENERATION_CONFIG_NAME, (generation_config or GenerationConfig()).model_dump())
        os.replace(unfinished, whole)
    except OSError as error:
        raise UserError(f"{folder}: cannot write this bundle: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def convert(path: Path, kind: Kind, config: ModelConfig, target: Path, overwrite: bool = False) -> Path:
    """Writes a checkpoint as safetensors, with its model config inside; returns `target`.

    A released one has none, and gets `config`.

    Raises UserError if the checkpoint does not fit the config, or if `target` exists: only `overwrite` replaces a file,
    and the input is never replaced.
    """
    _check_target(find_weights(path, kind), target, overwrite)
    cpu = torch.device("cpu")
    if kind == "clap_rvq":
        ClapQuantizer.load(path, config, cpu)
    elif kind == "hubert_kmeans":
        load_centroids(path, config)
    else:
        load_stage(path, kind, config, cpu)
    weights = load_weights(path, kind)
    save_weights(target, kind, weights.tensors, weights.model_config or config)
    return target


def open_bundle(name: str) -> Path:
    """The folder of a bundle: a local one, or downloaded from the hub. Raises UserError."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / MODEL_CONFIG_NAME).exists():
            raise UserError(f"--checkpoint_dir {name}: holds no {MODEL_CONFIG_NAME}; make one with scripts/bundle.py")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = first_line(error)
        raise UserError(f"--checkpoint_dir {name}: no such folder, and not available on the hub: {reason}") from error


def push(folder: Path, hub_id: str) -> None:
    """Uploads a bundle to the hub. Raises UserError."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(hub_id, exist_ok=True)
        HfApi().upload_folder(repo_id=hub_id, folder_path=folder)
    except Exception as error:  # of the hub's, the network's or the disk's
        raise UserError(f"--push_to_hub {hub_id}: cannot push {folder}: {first_line(error)}") from error


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.exists() and target.samefile(source):
        raise UserError(f"{target}: this is the input checkpoint; name another --output")
    if os.path.lexists(target) and not target.is_file():
        raise UserError(f"{target}: already exists and is not a file; name another --output")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: already exists; give --overwrite to replace it, or name another --output")
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: expected a name that ends in .safetensors; name another --output")


def _backbone_files(config: ModelConfig) -> dict[str, Path]:
    """The files of local backbones that a bundle copies, by their name in the bundle.

    Raises UserError for a path of no directory, and for a directory that is no such backbone.
    """
    clap, section = clap_directory(config), config.clap_rvq_cfg
    laion = section.checkpoint_path
    found: dict[str, Sequence[Path]] = {}
    if clap.files.local:
        found["clap"] = clap.tokenizer_paths() if laion is not None else clap.paths()
    if _is_local(config, "mert"):
        found["mert"] = mert_directory(config).paths()
    codec, decoder = is_local_codec(config), _is_local(config, "decoder")
    if codec or decoder:
        Codec.load(config, torch.device("cpu"))
    if codec:
        found["encodec"] = codec_paths(config)
    if decoder:
        found["decoder"] = codec_decoder_paths(config)
    files = {f"{name}/{path.name}": path for name, paths in found.items() for path in paths}
    if laion is not None:
        path = Path(config.backbone(laion))
        read_laion(path, section)
        files[_LAION_NAME] = path
    for path in files.values():
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise UserError(f"{path}: cannot be copied into a bundle: it or its folder is a link, or it is not a file")
    return files


def _is_local(config: ModelConfig, backbone: str) -> bool:
    """Whether the config names a local directory for one of BACKBONES. Raises UserError for a path of none."""
    section, key = BACKBONES[backbone]
    name = getattr(getattr(config, section), key)
    return name is not None and is_local(config.backbone(name), f"{section}: {key}")


def _copy(source: Path, target: Path) -> None:
    """Copies a regular file; follows no link. Raises OSError."""
    target.parent.mkdir(exist_ok=True)
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as opened, target.open("wb") as written:
        shutil.copyfileobj(opened, written)


def _moved(content: dict[str, Any], copied: Mapping[str, Path]) -> dict[str, Any]:
    """The model config with the new paths of copied backbones."""
    for name, (section, key) in BACKBONES.items():
        if any(file.split("/")[0] == name for file in copied):
            content[section][key] = f"./{name}"
    return content


def _pack_adapters(adapters: Sequence[tuple[Path, float]], config: ModelConfig, bundle: Path) -> None:
    """Writes adapter files, each with its weight, into adapters/ of a bundle whose stages are there already.

    Raises UserError if an adapter is for other weights than the bundle's.
    """
    weights = {}
    for number, (path, weight) in enumerate(adapters):
        adapter = load_adapter(path)
        if adapter.stage not in config.stage_names:
            raise UserError(f"{path}: an adapter of the {adapter.stage} stage, but this model has no such stage")
        file = bundle / weights_name(adapter.stage)
        stage = load_stage(file, adapter.stage, config, torch.device("cpu"))
        merge_adapters(stage, [(adapter, weight)], f"the {adapter.stage} stage of the bundle")
        name = f"{number}_{adapter_name(adapter.stage)}"
        save_adapter(replace(adapter, path=bundle / ADAPTERS_FOLDER / name))
        weights[name] = weight
    if weights:
        write_json(bundle / ADAPTERS_FOLDER / WEIGHTS_NAME, weights)
