"""The centroids in a k-means file of joblib, read without executing anything.

Such a file is a pickle in which every array's bytes follow the record that describes it. The pickle is read as data
(`open_musiclm.checkpoints.pickle_machine`): what it calls becomes an inert `_Record` of the arguments and the
state that it is given, and a name that no k-means file needs is refused.
"""

import math
import re
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.checkpoints.pickle_machine import PickleMachine
from open_musiclm.checkpoints.torch_files import PICKLE_ERRORS
from open_musiclm.errors import UserError

_MOST_BYTES = 1 << 28
_MOST_STEPS = _MOST_STEP_BYTES = 1 << 14  # of the pickle without its arrays; a k-means needs about a thousand bytes
_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_DTYPE = "numpy.dtype"
_MODULES = ("sklearn.cluster._kmeans", "sklearn.cluster.k_means_")
_KMEANS = frozenset(f"{module}.{name}" for module in _MODULES for name in ("KMeans", "MiniBatchKMeans"))
_ALLOWED = _KMEANS | {
    _ARRAY,
    _DTYPE,
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.random._pickle.__randomstate_ctor",
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._mt19937.MT19937",
}
_NUMBER = re.compile(r"[fiu][1248]|b1")


def read_centroids(path: Path) -> Float[Tensor, "codebook features"]:
    """The centroids as float32. Raises UserError for any file that is not a plain or zlib-compressed k-means."""
    try:
        kmeans = _Reader(path, _content(path)).load()
    except PICKLE_ERRORS as error:
        raise UserError(f"{path}: not a whole k-means file of joblib: {' '.join(str(error).split())[:200]}") from error
    state = kmeans.state if isinstance(kmeans, _Record) and kmeans.name in _KMEANS else None
    centroids = state.get("cluster_centers_") if isinstance(state, dict) else None
    if not isinstance(centroids, np.ndarray) or centroids.ndim != 2 or centroids.dtype.kind != "f":
        raise UserError(f"{path}: holds no fitted k-means with a table of centroids")
    return torch.from_numpy(np.array(centroids, dtype=np.float32, order="C"))


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        with path.open("rb") as file:
            content = file.read(min(path.stat().st_size, _MOST_BYTES) + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error
    if content[:1] == b"\x78" or content[:2] == b"\x1f\x8b":
        try:
            content = zlib.decompressobj(wbits=47).decompress(content, _MOST_BYTES + 1)
        except zlib.error as error:
            raise UserError(f"{path}: not a whole compressed file: {error}") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: larger than {_MOST_BYTES >> 20} MiB; a k-means file is a few MiB")
    if content[:1] != b"\x80":
        raise UserError(f"{path}: not a k-means file of joblib (plain or compressed with zlib) nor safetensors")
    return content


class _Name:
    """Stands for a class or function that a pickle names."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Record:
    """Stands for what a pickle calls `name`: the arguments it passes and the state it sets, never such an object."""

    def __init__(self, name: str, arguments: tuple[object, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None


class _Reader(PickleMachine):
    """The pickle of one file, and the arrays between its steps."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        super().__init__(BytesIO(content), _MOST_STEPS, _MOST_STEP_BYTES)

    def named(self, name: str) -> _Name:
        """An allowed name. Raises UserError for any other."""
        if name not in _ALLOWED:
            raise UserError(
                f"{self._path}: refused: this pickle names {name!r:.80}, which no k-means needs; do not trust it"
            )
        return _Name(name)

    def called(self, function: object, arguments: tuple[object, ...]) -> _Record:
        """A record of the call."""
        if not isinstance(function, _Name):
            raise TypeError("it calls what is no function")
        return _Record(function.name, arguments)

    def built(self, value: object, state: object) -> object:
        """A record with its state, and of nothing else; an array's record becomes the array."""
        if not isinstance(value, _Record):
            raise TypeError(f"a state for a {type(value).__name__}")
        value.state = state
        return self._array(state) if value.name == _ARRAY else value

    def _array(self, state: object) -> np.ndarray:
        """The array that such a state describes, from the bytes that follow."""
        if not isinstance(state, dict) or not isinstance(state["shape"], tuple):
            raise TypeError("an array without a description")
        dtype, shape = _number_type(state["dtype"]), state["shape"]
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError("an array of a negative size")
        content, start = self.stream.getbuffer(), self.stream.tell()
        if state.get("numpy_array_alignment_bytes") is not None:
            start += 1 + content[start]
        values = np.frombuffer(content, dtype, math.prod(shape), start)
        self.stream.seek(start + values.nbytes)
        return values.reshape(shape, order="F" if state["order"] == "F" else "C")


def _number_type(record: object) -> np.dtype:
    """The number type of an array; arrays of objects, which would be pickles again, have none."""
    if not isinstance(record, _Record) or record.name != _DTYPE or not isinstance(record.state, tuple):
        raise TypeError("an array without a type")
    code, order = record.arguments[0], record.state[1]
    if not isinstance(code, str) or not _NUMBER.fullmatch(code) or order not in ("<", ">", "|", "="):
        raise ValueError("an array that is not of numbers")
    return np.dtype(code).newbyteorder(order)
