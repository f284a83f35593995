"""Measurements of sound files, cached on disk by content."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.evaluation.measure import Measured
from open_musiclm.files import atomic_write, prepare_folder
from open_musiclm.text_files import open_regular

_BLOCK_BYTES = 1 << 20
_DIGEST = "digest"  # a further tensor, which detects damaged or edited files


class MeasureCache:
    """One file for each sound and measure: `identity/ab/abcdef....safetensors`.

    Runs and processes share the folder. A damaged or edited file is ignored. Raises UserError
    if the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prepare_folder(folder)

    def find(self, identity: str, key: str, finite: bool = True) -> Measured | None:
        """What is stored, if anything. With `finite`, None if a value is NaN or infinite."""
        with (
            suppress(UserError, SafetensorError, ValueError, KeyError),
            open_regular(self._path(identity, key)) as file,
        ):
            found = load(file.read())
            digest = found.pop(_DIGEST, None)
            whole = digest is not None and torch.equal(digest, _digest_of(found, identity, key))
            return found if whole and (not finite or all_finite(found.values())) else None
        return None

    def keep(self, identity: str, key: str, measured: Measured) -> None:
        """Stores measured vectors. Raises UserError."""
        tensors = {name: vectors.contiguous() for name, vectors in measured.items()}
        with atomic_write(self._path(identity, key)) as temporary:
            temporary.write_bytes(save({**tensors, _DIGEST: _digest_of(tensors, identity, key)}))

    def _path(self, identity: str, key: str) -> Path:
        return self.folder / identity / key[:2] / f"{key}.safetensors"


def content_key(path: Path, seconds: float | None) -> str:
    """The key of a sound: its bytes, and how much of it is measured. Raises UserError."""
    digest = hashlib.sha256(f"{seconds}\n".encode())
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def all_finite(vectors: Iterable[Tensor]) -> bool:
    """Whether all that was measured is a number."""
    return all(bool(own.isfinite().all()) for own in vectors)


def _digest_of(measured: Measured, identity: str, key: str) -> UInt8[Tensor, "32"]:
    digest = hashlib.sha256(f"{identity} {key}".encode())
    for name, vectors in sorted(measured.items()):
        digest.update(f"{name} {list(vectors.shape)} {vectors.dtype}".encode())
        digest.update(vectors.reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
