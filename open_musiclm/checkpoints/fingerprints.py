"""Fingerprints: short texts that identify weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """Identifies weights: a hash of their names, shapes and float32 values, in whatever precision they were stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
