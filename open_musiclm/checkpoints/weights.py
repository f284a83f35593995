"""Weights on disk: safetensors whose metadata has their kind and model config.

Nothing here unpickles: released `.pt` files go through `checkpoints.legacy`, which reads tensors only.
"""

import json
import os
import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from open_musiclm import __version__
from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.legacy import stages as released
from open_musiclm.checkpoints.state_comparison import load_state
from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.checkpoints.unwrapping import unwrapped
from open_musiclm.config import ModelConfig, model_config_from_json
from open_musiclm.config.json_files import read_json_object
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write

Kind = Literal["semantic", "coarse", "fine", "clap_rvq", "hubert_kmeans"]
CHECKPOINTS_FOLDER = "checkpoints"
BEST_NAME = "best.json"  # in it
_STEP_FOLDER = re.compile(r"step_(\d+)")
_FORMAT = "open_musiclm"


@dataclass(frozen=True)
class Weights:
    """Tensors by parameter name, and their model config (None in released files)."""

    path: Path
    tensors: dict[str, Tensor]
    model_config: ModelConfig | None


def weights_name(kind: Kind) -> str:
    """The file name of weights of this kind within a checkpoint folder."""
    return f"{kind}.safetensors"


def step_folder(results_folder: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return results_folder / CHECKPOINTS_FOLDER / f"step_{step:08d}"


def saved_steps(results_folder: Path) -> list[int]:
    """The steps with a complete checkpoint in a results folder, ascending."""
    folder = results_folder / CHECKPOINTS_FOLDER
    matches = [_STEP_FOLDER.fullmatch(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match.group(1)) for match in matches if match)


def chosen_step(results_folder: Path) -> int | None:
    """The step of the checkpoint that a results folder means: the newest, or the best one of a run that may stop early.

    None if there is no checkpoint.
    """
    steps = saved_steps(results_folder)
    with suppress(UserError, OSError):
        best = read_json_object(results_folder / CHECKPOINTS_FOLDER / BEST_NAME)
        if best.get("chosen") is True and best.get("step") in steps:
            return int(best["step"])
    return steps[-1] if steps else None


def find_weights(path: Path, kind: Kind) -> Path:
    """The weights file that `path` means: itself, or that of a checkpoint folder or results folder (see `chosen_step`).

    Raises UserError if there is none.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: no such checkpoint for {kind}")
        return path
    step = chosen_step(path)
    folder = path if step is None else step_folder(path, step)
    file = folder / weights_name(kind)
    if not file.exists() and (folder / f"{kind}_adapter.safetensors").exists():
        raise _adapter_error(path)
    if not file.exists():
        raise UserError(f"{path}: holds no {weights_name(kind)}; give the results folder of the {kind} training")
    return file


def _adapter_error(path: Path) -> UserError:
    return UserError(
        f"{path}: an adapter, not whole weights; give the weights that it was trained on here; for generation "
        "give this as --adapter_path, else merge both first (scripts/merge_adapter.py)"
    )


def check_new_output(output: Path) -> None:
    """Raises UserError if `--output` exists, or has another suffix than that of weights."""
    if os.path.lexists(output):
        raise UserError(f"--output {output}: already exists; name a new file")
    if output.suffix != ".safetensors":
        raise UserError(f"--output {output}: expected a name that ends in .safetensors")


def save_weights(path: Path, kind: Kind, tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Writes weights and their config, atomically.

    Raises UserError, also if the weights hold NaN or infinity.
    """
    check_finite(tensors, path)
    metadata = {
        "format": _FORMAT,
        "kind": kind,
        "open_musiclm_version": __version__,
        "model_config": config.model_dump_json(),
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_tensors(contiguous, temporary, metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise UserError(f"{path}: cannot write: {error}") from error


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file; equal tensors and metadata give equal files.

    safetensors itself writes the keys of the metadata in random order. Raises
    SafetensorError and OSError.
    """
    save_file(tensors, path, dict(metadata) or None)
    if not metadata:
        return
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "a header with its keys in another order is as long"
        file.seek(8)
        file.write(text.ljust(length))


def load_weights(path: Path, kind: Kind) -> Weights:
    """Reads weights of the expected kind from a file or folder, this project's or released ones.

    Raises UserError, also if they hold NaN or infinity.
    """
    file = find_weights(path, kind)
    if file.suffix != ".safetensors":
        tensors = released.read(file, kind)
        check_finite(tensors, file)
        return Weights(file, tensors, None)
    content, metadata = read_tensors(file)
    tensors = dict(unwrapped(content, file))
    if metadata.get("format") == f"{_FORMAT}_adapter":
        raise _adapter_error(file)
    if metadata.get("format") != _FORMAT or not {"kind", "model_config"} <= metadata.keys():
        raise UserError(
            f"{file}: not an open_musiclm checkpoint (its metadata lacks format={_FORMAT}, kind or model_config)"
        )
    if metadata["kind"] != kind:
        raise UserError(f"{file}: holds {metadata['kind']} weights; {kind} weights are needed here")
    return Weights(file, tensors, model_config_from_json(metadata["model_config"], str(file)))


def trained_config(path: Path, kind: Kind, config: ModelConfig) -> ModelConfig:
    """The model config that weights were trained with, if they have it, else `config`. Raises UserError."""
    return load_weights(path, kind).model_config or config


def load_into(module: nn.Module, weights: Weights) -> None:
    """Copies weights into a module. Raises UserError that names the keys that differ."""
    load_state(module, weights.tensors, f"{weights.path}: does not fit the model config")


def differing_keys(found: ModelConfig, expected: ModelConfig, section: str) -> list[str]:
    """The keys of a section that differ between two model configs, as 'section.key: found, expected'."""
    left, right = (getattr(config, section).model_dump() for config in (found, expected))
    return [f"{section}.{key}: {left[key]} there, {right[key]} here" for key in left if left[key] != right[key]]
