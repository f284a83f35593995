"""Loads transformers' models from a foreign directory with a checked config.

The model is first built without memory, so a config with wrong sizes costs nothing, however large they are.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from open_musiclm.checkpoints.foreign import CONFIG_NAME, ForeignDirectory

Size = Annotated[int, Field(ge=1, le=1 << 20)]
Layers = Annotated[int, Field(ge=1, le=128)]
TokenId = Annotated[int, Field(ge=0, le=1 << 20)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal[
    "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "quick_gelu", "leaky_relu", "relu", "selu",
    "sigmoid", "silu", "swish", "tanh",
]  # fmt: skip
Model = TypeVar("Model", bound=PreTrainedModel)
_RENAMED = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
_MOST_NAMED = 3


def filled(
    kind: type[Model],
    config: Any,
    tensors: Mapping[str, Tensor],
    directory: ForeignDirectory,
    may_lack: frozenset[str] = frozenset(),
) -> Model:
    """The model in float32 and evaluation mode. Raises UserError if the weights are not those of the config.

    `may_lack` are tensors that the weights need not hold; what the model has no place for is ignored.
    """
    with directory.reading(CONFIG_NAME), torch.device("meta"):
        expected = kind(config).state_dict()
    prefix = f"{kind.base_model_prefix}."
    found = {_our_name(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}
    _compare(expected, found, directory, may_lack)
    disable_progress_bar()  # loading is quick
    with directory.reading():
        state: Any = {name: found[name] for name in expected.keys() & found.keys()}
        return kind.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)


def _our_name(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _compare(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    directory: ForeignDirectory,
    may_lack: frozenset[str],
) -> None:
    missing = sorted(expected.keys() - found.keys() - may_lack)
    if missing:
        raise directory.refusal(f"its weights lack {len(missing)} keys: {', '.join(missing[:_MOST_NAMED])}, ...")
    shared = sorted(expected.keys() & found.keys())
    shapes = [
        f"{name} is {list(found[name].shape)}, by {CONFIG_NAME} {list(expected[name].shape)}"
        for name in shared
        if found[name].shape != expected[name].shape
    ]
    if shapes:
        raise directory.refusal(f"{len(shapes)} of its weights have another shape: {'; '.join(shapes[:_MOST_NAMED])}")
    for name in shared:
        if expected[name].is_floating_point() and not found[name].is_floating_point():
            raise directory.refusal(f"{name} in its weights is of type {str(found[name].dtype).removeprefix('torch.')}")
