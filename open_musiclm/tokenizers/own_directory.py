"""A model of this project as a directory: `config.json` (its architecture) and `model.safetensors` (its weights)."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from open_musiclm.checkpoints.state_comparison import state_differences
from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.config.json_files import Section, load_section
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write, write_json

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
Architecture = TypeVar("Architecture", bound=Section)
Model = TypeVar("Model", bound=nn.Module)


def save_model(model: nn.Module, architecture: Section, folder: Path) -> None:
    """Writes a directory that `load_model` reads. Raises UserError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with atomic_write(folder / WEIGHTS_NAME) as temporary:
            save_file(tensors, temporary)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS_NAME}: cannot write: {error}") from error
    write_json(folder / CONFIG_NAME, architecture.model_dump())


def load_model(
    folder: Path, kind: type[Architecture], build: Callable[[Architecture], Model]
) -> tuple[Model, Architecture]:
    """The model in evaluation mode on the CPU, and its architecture. Raises UserError."""
    architecture = load_section(folder / CONFIG_NAME, kind)
    weights = folder / WEIGHTS_NAME
    return model_with_weights(lambda: build(architecture), read_tensors(weights)[0], weights), architecture


def model_with_weights(build: Callable[[], Model], tensors: Mapping[str, Tensor], weights: Path) -> Model:
    """The model that `build` gives, in evaluation mode, with these weights, of the file `weights`.

    It is first built without memory, so that sizes that the weights do not have cost nothing. Raises UserError.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is empty is refused below
            expected = build().state_dict()
    except Exception as error:  # torch may raise anything for sizes that make no sense
        raise UserError(
            f"{weights.parent / CONFIG_NAME}: no model has this architecture: {' '.join(str(error).split())[:300]}"
        ) from error
    differences = state_differences(expected, tensors)
    if differences:
        raise UserError(f"{weights}: does not fit {CONFIG_NAME} beside it: {differences}")
    model = build()
    model.load_state_dict(dict(tensors))
    return model.eval()


def check_same_architecture(directory: Path, found: Section, wanted: Section) -> None:
    """Raises UserError if a directory's model has another architecture than the one in training."""
    if found != wanted:
        own, expected = found.model_dump(), wanted.model_dump()
        differing = ", ".join(f"{key} {own[key]}, not {expected[key]}" for key in own if own[key] != expected[key])
        raise UserError(f"{directory}: its config.json differs from the architecture in training: {differing}")
