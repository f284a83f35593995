"""The interface of what is computed from a sound file once and kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig

from open_musiclm.audio import FileSound

Vectors = Float[Tensor, "_ _"]
Measured = Mapping[str, Vectors]
_IGNORED_KEYS = {"_name_or_path": "", "transformers_version": ""}


@runtime_checkable
class Measure(Protocol):
    """`name` is for readers; `identity` depends on all that affects the result: weights, windows, version of the code.

    `batch` is how many sounds are measured at a time. `finite`: a number that is not finite is a fault.
    """

    name: str
    identity: str
    batch: int
    finite: bool

    def measure(self, sounds: Sequence[FileSound]) -> list[Measured]:
        """Of each sound some named sets of float32 vectors, on the CPU."""


def identity_of(what: str, module: nn.Module | None = None) -> str:
    """A name for a folder: 16 characters that depend on `what` and on all of a module: its weights and other tensors,
    its architecture and, of a pretrained model, its config. Its path does not matter."""
    digest = hashlib.sha256(what.encode())
    if module is not None:
        digest.update(repr(module).encode())
        for part in module.modules():
            if isinstance(config := getattr(part, "config", None), PretrainedConfig):
                digest.update(json.dumps(config.to_dict() | _IGNORED_KEYS, sort_keys=True, default=str).encode())
        for name, tensor in sorted({**dict(module.named_buffers()), **dict(module.named_parameters())}.items()):
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
