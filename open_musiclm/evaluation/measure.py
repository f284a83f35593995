"""The interface of what is computed from a sound file once and kept."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from open_musiclm.audio import Sound

Vectors = Float[Tensor, "_ _"]
Measured = Mapping[str, Vectors]


@runtime_checkable
class Measure(Protocol):
    """`name` is what people read, `identity` what decides the result: weights, windows, version of the computation.

    `batch` is how many sounds are measured at a time. `finite`: a number that is not finite is a fault.
    """

    name: str
    identity: str
    batch: int
    finite: bool

    def measure(self, sounds: Sequence[Sound]) -> list[Measured]:
        """Of each sound some named sets of float32 vectors, on the CPU."""


def identity_of(what: str, module: nn.Module | None = None) -> str:
    """A name for a folder: 16 characters that depend on `what` and on all weights of a module."""
    digest = hashlib.sha256(what.encode())
    if module is not None:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
