"""Adapters at inference: which ones a model is loaded with, each merged into the weights of its stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from open_musiclm.checkpoints import check_new_output, find_weights, save_weights, trained_config
from open_musiclm.checkpoints.adapters import ADAPTERS_FOLDER, WEIGHTS_NAME, Adapter, find_adapters, load_adapter
from open_musiclm.config import ModelConfig, StageName
from open_musiclm.config.json_files import read_json_object, shown
from open_musiclm.errors import UserError
from open_musiclm.generation.paths import AdapterPath
from open_musiclm.models.lora import merge_adapters
from open_musiclm.models.stages import Stage, load_stage
from open_musiclm.terminal import print_stderr


@dataclass(frozen=True)
class WeightedAdapter:
    """An adapter, and the factor of its update."""

    adapter: Adapter
    weight: float


def load_adapters(paths: Sequence[AdapterPath]) -> list[WeightedAdapter]:
    """All adapters at the paths, in order; the weights of a bundle's adapters multiply those given.

    Raises UserError.
    """
    found = []
    for path in paths:
        own = _weights_in(path.path)
        files = find_adapters(path.path)
        found += [WeightedAdapter(load_adapter(file), path.weight * own.get(file.name, 1.0)) for file in files]
    return found


def bundled_adapters(folder: Path) -> list[AdapterPath]:
    """The adapters of a bundle. Raises UserError."""
    inside = folder / ADAPTERS_FOLDER
    if not inside.is_dir():
        return []
    weights = _weights_in(inside)
    return [AdapterPath(file, weights.get(file.name, 1.0)) for file in find_adapters(inside)]


def _weights_in(folder: Path) -> dict[str, float]:
    """What the file of weights in a folder of adapters says of each; nothing without one. Raises UserError."""
    path = folder / WEIGHTS_NAME
    if not path.exists():
        return {}
    names, weights = [file.name for file in find_adapters(folder)], read_json_object(path)
    for name, weight in weights.items():
        if name not in names or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UserError(
                f"{path}: {shown(name)}: {shown(weight)}; expected the name of an adapter beside it, and a number"
            )
    return {name: float(weight) for name, weight in weights.items()}


def apply_adapters(
    adapters: Sequence[WeightedAdapter], stages: Mapping[StageName, Stage], paths: Mapping[str, Path]
) -> None:
    """Merges each adapter into its stage; prints a line about one whose stage is not loaded.

    `paths` are those of the stages' weights, by flag. Raises UserError if an adapter is for other weights.
    """
    for name, stage in stages.items():
        own = [(item.adapter, item.weight) for item in adapters if item.adapter.stage == name]
        merge_adapters(stage, own, paths[f"{name}_path"])
    for item in adapters:
        if item.adapter.stage not in stages:
            print_stderr(f"{item.adapter.path}: not used: this command does not load the {item.adapter.stage} stage")


def write_merged(
    name: StageName, config: ModelConfig, base: Path, adapters: Sequence[AdapterPath], output: Path
) -> None:
    """Writes the weights of stage `name` at `base` with the adapters merged. Raises UserError."""
    check_new_output(output)
    weighted = load_adapters(adapters)
    if not weighted:
        raise UserError("--adapter_path: names no adapter to merge")
    own = [item for item in weighted if item.adapter.stage == name]
    if not own:
        found = ", ".join(f"{item.adapter.path} ({item.adapter.stage} stage)" for item in weighted)
        raise UserError(f"--adapter_path: no adapter of the {name} stage there, only {found}")
    stage = load_stage(base, name, config, torch.device("cpu"))
    merge_adapters(stage, [(item.adapter, item.weight) for item in own], find_weights(base, name))
    save_weights(output, name, stage.layout.state_dict(), trained_config(base, name, config))
