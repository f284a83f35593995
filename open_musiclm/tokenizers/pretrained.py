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
from open_musiclm.checkpoints.state_comparison import state_differences

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


def pretrained_model(
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
    named = {_our_name(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}
    state = {name: tensor for name, tensor in named.items() if name in expected}
    differences = state_differences(expected, state, may_lack)
    if differences:
        raise directory.refusal(f"its weights do not fit {CONFIG_NAME}: {differences}")
    with directory.reading():
        return model_of_state(kind, config, state)


def model_of_state(kind: type[Model], config: Any, state: Mapping[str, Tensor]) -> Model:
    """The model with this state, in float32 and evaluation mode; tensors that it lacks are initialised."""
    disable_progress_bar()  # loading is quick
    whole: Any = dict(state)
    return kind.from_pretrained(None, config=config, state_dict=whole, dtype=torch.float32)


def _our_name(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
