"""The folder adapters/ of a bundle: adapters that generation uses unless told otherwise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from open_musiclm.checkpoints.adapters import ADAPTERS_FOLDER, WEIGHTS_NAME, adapter_name, load_adapter, save_adapter
from open_musiclm.checkpoints.weights import weights_name
from open_musiclm.config import ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.files import write_json
from open_musiclm.models.lora import merge_adapters
from open_musiclm.models.stages import load_stage


def pack_adapters(adapters: Sequence[tuple[Path, float]], config: ModelConfig, bundle: Path) -> None:
    """Writes adapter files, each with its weight, into a bundle whose stages are there already.

    Raises UserError where an adapter is for other weights than the bundle's.
    """
    weights = {}
    for number, (path, weight) in enumerate(adapters):
        adapter = load_adapter(path)
        if adapter.stage not in config.stage_names:
            raise UserError(f"{path}: an adapter of the {adapter.stage} stage, which this model does not have")
        file = bundle / weights_name(adapter.stage)
        stage = load_stage(file, adapter.stage, config, torch.device("cpu"))
        merge_adapters(stage, [(adapter, weight)], f"the {adapter.stage} stage of the bundle")
        name = f"{number}_{adapter_name(adapter.stage)}"
        save_adapter(replace(adapter, path=bundle / ADAPTERS_FOLDER / name))
        weights[name] = weight
    if weights:
        write_json(bundle / ADAPTERS_FOLDER / WEIGHTS_NAME, weights)
