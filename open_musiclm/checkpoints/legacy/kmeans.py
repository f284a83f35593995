"""The centroids in a k-means file of joblib, read without unpickling.

Such a file is a pickle in which every array's bytes follow the record that describes it. A pickle is a program
for a stack machine; this one only moves data: what a program would call becomes a `_Record` of its name and
arguments, and a name that no k-means file needs is refused. Nothing is ever imported or called.
"""

import io
import math
import pickletools
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError

_MOST_BYTES = 1 << 28
_MOST_STEPS = 100_000
_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_DTYPE = "numpy.dtype"
_KMEANS = frozenset(
    (
        "sklearn.cluster._kmeans.MiniBatchKMeans",
        "sklearn.cluster._kmeans.KMeans",
        "sklearn.cluster.k_means_.MiniBatchKMeans",
        "sklearn.cluster.k_means_.KMeans",
    )
)
_NUMPY = frozenset(
    (
        _DTYPE,
        "numpy.ndarray",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._mt19937.MT19937",
    )
)
_ALLOWED = _KMEANS | _NUMPY | {_ARRAY}
_NUMBER = re.compile(r"[fiu][1248]|b1")
_MARK = object()
_ANYTHING = [pickletools.anyobject]


@dataclass(eq=False)
class _Record:
    """What the pickle names, the arguments it gives it and the state it sets: data, never an object of that kind."""

    name: str
    arguments: object = None
    state: object = None


def read_centroids(path: Path) -> Float[Tensor, "codebook features"]:
    """The centroids as float32. Raises UserError for any file that is not a plain or zlib-compressed k-means."""
    stream = io.BytesIO(_content(path))
    try:
        kmeans = _replay(stream, path)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: not a whole k-means file of joblib: {' '.join(str(error).split())}") from error
    state = kmeans.state if isinstance(kmeans, _Record) and kmeans.name in _KMEANS else None
    centroids = state.get("cluster_centers_") if isinstance(state, dict) else None
    if not isinstance(centroids, np.ndarray) or centroids.ndim != 2 or centroids.dtype.kind != "f":
        raise UserError(f"{path}: holds no fitted k-means with a table of centroids")
    return torch.from_numpy(np.array(centroids, dtype=np.float32, order="C"))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
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


def _replay(stream: io.BytesIO, path: Path) -> object:
    """Moves the pickle's data about as its steps say; returns what it leaves on the stack."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step == _MOST_STEPS:
            raise ValueError("far more steps than a k-means needs")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(_since_mark(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_taken(stack, int(opcode.name[-1]))))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "APPEND" | "APPENDS":
                items = _taken(stack, 1) if opcode.name == "APPEND" else _since_mark(stack)
                _top(stack, list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = _taken(stack, 2) if opcode.name == "SETITEM" else _since_mark(stack)
                _top(stack, dict).update(zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_named(str(argument).replace(" ", "."), path))
            case "STACK_GLOBAL":
                module, name = _taken(stack, 2)
                stack.append(_named(f"{module}.{name}", path))
            case "NEWOBJ" | "REDUCE":
                called, arguments = _taken(stack, 2)
                stack.append(_Record(called.name if isinstance(called, _Record) else "nothing", arguments))
            case "BUILD":
                (state,) = _taken(stack, 1)
                record = _top(stack, _Record)
                record.state = state
                if record.name == _ARRAY:
                    stack[-1] = _array(state, stream)
            case _ if opcode.arg is not None and not opcode.stack_before and opcode.stack_after != _ANYTHING:
                stack.append(argument)  # a number, text or bytes
            case _:
                raise ValueError(f"a step {opcode.name} that a k-means does not need")
    raise ValueError("no end")


def _named(name: str, path: Path) -> _Record:
    if name not in _ALLOWED:
        raise UserError(f"{path}: refused: this pickle names {name!r:.80}, which no k-means needs; do not trust it")
    return _Record(name)


def _array(state: object, stream: io.BytesIO) -> np.ndarray:
    """The array that such a record describes, from the bytes that follow."""
    if not isinstance(state, dict):
        raise TypeError("an array without a description")
    dtype, shape = _number_type(state["dtype"]), tuple(int(size) for size in state["shape"])
    if state.get("numpy_array_alignment_bytes") is not None:
        stream.read(stream.read(1)[0])
    count = math.prod(shape)
    content = stream.read(count * dtype.itemsize) if min(shape, default=1) >= 0 else b""
    return np.frombuffer(content, dtype, count).reshape(shape, order="F" if state["order"] == "F" else "C")


def _number_type(record: object) -> np.dtype:
    """The number type of an array; arrays of objects, which would be pickles again, have none."""
    if not isinstance(record, _Record) or record.name != _DTYPE:
        raise TypeError("an array without a type")
    (code, *_), order = _sequence(record.arguments), _sequence(record.state)[1]
    if not isinstance(code, str) or not _NUMBER.fullmatch(code) or order not in ("<", ">", "|", "="):
        raise ValueError(f"an array of {code!r:.20}, not of numbers")
    return np.dtype(code).newbyteorder(order)


def _sequence(value: object) -> tuple:
    if not isinstance(value, tuple):
        raise TypeError("a tuple was expected")
    return value


def _top(stack: list[Any], kind: type) -> Any:
    if not isinstance(stack[-1], kind):
        raise TypeError(f"a {kind.__name__} was expected")
    return stack[-1]


def _taken(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("too little on the stack")
    items = stack[-count:]
    del stack[-count:]
    return items


def _since_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]
