"""A bundle: one folder for a whole model.

It has `model_config.json`, `generation_config.json`, the five trained parts, and the backbones that the config names by
a local directory. Every inference script takes such a folder, or the hub id of one, as `--checkpoint_dir`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from open_musiclm.checkpoints import Kind, load_weights, save_weights, weights_name
from open_musiclm.config import (
    GENERATION_CONFIG_NAME,
    MODEL_CONFIG_NAME,
    GenerationConfig,
    ModelConfig,
    load_model_config,
)
from open_musiclm.config.json_files import read_json
from open_musiclm.errors import UserError
from open_musiclm.files import write_json
from open_musiclm.models.stages import load_stage
from open_musiclm.tokenizers.mert import load_centroids
from open_musiclm.tokenizers.rvq import ClapQuantizer

# The section of the model config and the folder of the bundle that hold each backbone.
_BACKBONES = {"clap_rvq_cfg": "clap", "hubert_kmeans_cfg": "mert", "encodec_cfg": "encodec"}
_LAION_NAME = "laion_clap.pt"


def bundle_kinds(config: ModelConfig) -> tuple[Kind, ...]:
    """The trained parts of a model."""
    return (*config.stage_names, "clap_rvq", "hubert_kmeans")


def pack(
    model_config: Path, paths: Mapping[Kind, Path], folder: Path, generation_config: GenerationConfig | None = None
) -> list[Path]:
    """Writes a bundle of the parts at `paths`, ours or released, each checked against the config.

    Backbones that the config names by a local directory are copied, and so is a LAION file. Without a generation config
    the bundle has the defaults. Returns the files written. Raises UserError, also where the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty; name a new folder for the bundle")
    config = load_model_config(model_config)
    laion = config.clap_rvq_cfg.checkpoint_path
    if laion is not None and not Path(config.backbone(laion)).is_file():
        raise UserError(f"{model_config}: clap_rvq_cfg: checkpoint_path: no such file: {config.backbone(laion)}")
    converted = {kind: convert(path, kind, config, folder / weights_name(kind)) for kind, path in paths.items()}
    content = read_json(model_config)
    for section, name in _BACKBONES.items():
        local = _local_backbone(config, section)
        if local is not None:
            shutil.copytree(local, folder / name)
            content[section]["model_name"] = f"./{name}"
    if laion is not None:
        shutil.copyfile(config.backbone(laion), folder / _LAION_NAME)
        content["clap_rvq_cfg"]["checkpoint_path"] = f"./{_LAION_NAME}"
    write_json(folder / MODEL_CONFIG_NAME, content)
    write_json(folder / GENERATION_CONFIG_NAME, (generation_config or GenerationConfig()).model_dump())
    return [folder / MODEL_CONFIG_NAME, folder / GENERATION_CONFIG_NAME, *converted.values()]


def convert(path: Path, kind: Kind, config: ModelConfig, target: Path) -> Path:
    """Any checkpoint of ours or released as safetensors with its config inside. Raises UserError where it does not
    fit the config."""
    cpu = torch.device("cpu")
    if kind == "clap_rvq":
        ClapQuantizer.load(path, config, cpu)
    elif kind == "hubert_kmeans":
        load_centroids(path, config)
    else:
        load_stage(path, kind, config, cpu)
    save_weights(target, kind, load_weights(path, kind).tensors, config)
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
        reason = str(error).splitlines()[0]
        raise UserError(f"--checkpoint_dir {name}: no such folder, and not to be had from the hub: {reason}") from error


def push(folder: Path, hub_id: str) -> None:
    """Uploads a bundle to the hub. Raises UserError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().create_repo(hub_id, exist_ok=True)
        HfApi().upload_folder(repo_id=hub_id, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"--push_to_hub {hub_id}: {str(error).splitlines()[0]}") from error


def _local_backbone(config: ModelConfig, section: str) -> Path | None:
    name = getattr(config, section).model_name
    if name is None:
        return None
    folder = Path(config.backbone(name))
    return folder if folder.is_dir() else None
