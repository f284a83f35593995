"""Tensors from a `.pt` file of torch.save, read without executing anything.

Such a file is a zip that holds a pickle and, uncompressed, the bytes of each tensor. What the pickle may name is
the short list below, and each name stands for a function of this file; any other name is refused. What it may
describe is bounded, see `open_musiclm.checkpoints.pickle_machine`. `torch.load` with `weights_only=True` is
less strict, and reads only pickles of protocol 2; LAION's are of protocol 4.
"""

import io
import mmap
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from open_musiclm.checkpoints.pickle_machine import PickleMachine
from open_musiclm.checkpoints.unwrapping import unwrapped
from open_musiclm.errors import UserError

# What unpickling raises where a file is damaged, or was made to harm.
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MOST_PICKLE_BYTES = 1 << 24
_MOST_STEPS = 1 << 19  # 20 for each tensor
_MOST_DIRECTORY_BYTES = 1 << 22  # of the zip; 100 for each tensor
_MOST_VIEWS = 4  # times the file's size, of all tensors together
_NUMBER = re.compile(r"[fiu][1248]|b1")
_LOCAL_HEADER_BYTES = 30
_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def read_torch_file(path: Path) -> dict[str, Any]:
    """What torch.save wrote: dicts, lists, tuples, strings, numbers, and tensors on the CPU.

    Tensors are mapped from the file, so that those never looked at cost neither time nor memory.
    Raises UserError if the file is damaged, or names or compresses anything.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        with _File(path) as file, zipfile.ZipFile(file) as archive:
            content = _Reader(path, archive, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)).read()
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a whole file of torch.save (cut short, or of another format)") from error
    except PICKLE_ERRORS as error:
        raise UserError(f"{path}: damaged, or not of torch.save: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; a dict of tensors was expected")
    return dict(content)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a file that holds nothing else, or that other trainers wrapped. Raises UserError."""
    tensors = {}
    for name, value in unwrapped(read_torch_file(path), path).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: {str(name)[:80]!r} is a {type(value).__name__}; only named tensors were expected")
        tensors[name] = value
    return tensors


class _File(io.FileIO):
    """A file of which no more is read at once than a zip's directory takes: it has an object in memory for each
    member."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(_MOST_DIRECTORY_BYTES if size is None or size < 0 else min(size, _MOST_DIRECTORY_BYTES))


class _Mapping(dict):
    """Stands for an OrderedDict; the attributes that a state dict has beside its items are dropped."""

    __slots__ = ()


class _NumberType:
    """Stands for a numpy.dtype."""

    __slots__ = ("type",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise ValueError("a type that is not a number's")
        self.type = np.dtype(code)

    def set_order(self, state: object) -> None:
        """Takes the byte order out of the state of a numpy.dtype."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a type without a byte order")
        self.type = self.type.newbyteorder(state[1])


class _Reader(PickleMachine):
    """The pickle of one file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self._members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise zipfile.BadZipFile("no data.pkl")
        self._folder = pickles[0].removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        self._bytes_left = _MOST_VIEWS * len(content)
        start, size = self._place(pickles[0])
        if size > _MOST_PICKLE_BYTES:
            raise ValueError(f"its pickle is larger than {_MOST_PICKLE_BYTES >> 20} MiB")
        super().__init__(BytesIO(content[start : start + size]), _MOST_STEPS, _MOST_PICKLE_BYTES)
        self._functions: dict[str, Callable[..., object]] = {
            "collections.OrderedDict": self._mapping,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "numpy.dtype": _NumberType,
            "numpy.core.multiarray.scalar": self._number,
            "numpy._core.multiarray.scalar": self._number,
            "_codecs.encode": self._bytes,
        }

    def read(self) -> object:
        order, size = self._place(f"{self._folder}byteorder") if f"{self._folder}byteorder" in self._members else (0, 0)
        if self._content[order : order + size] not in (b"", b"little"):
            raise ValueError("its numbers are big-endian")
        return self.load()

    def named(self, name: str) -> object:
        """A tensor's number type, or the name of one of the functions above. Raises UserError for any other name."""
        storage = _STORAGES.get(name.removeprefix("torch.")) if name.startswith("torch.") else None
        if storage is not None:
            return storage
        if name not in self._functions:
            raise UserError(
                f"{self._path}: refused: its pickle names {name[:80]!r}, which weights never need; do not trust this "
                "file"
            )
        return _Function(name)

    def called(self, function: object, arguments: tuple[object, ...]) -> object:
        """The result of one of the functions above."""
        if not isinstance(function, _Function):
            raise TypeError("it calls what is no function")
        return self._functions[function.name](*arguments)

    def built(self, value: object, state: object) -> object:
        """An OrderedDict without its attributes, or a numpy.dtype with its byte order."""
        if isinstance(value, _NumberType):
            value.set_order(state)
        elif not isinstance(value, _Mapping):
            raise TypeError(f"a state for a {type(value).__name__}")
        return value

    def stored(self, identifier: object) -> object:
        """The numbers [elements] of a storage ('storage', type, name, device, elements), mapped from the file."""
        if not isinstance(identifier, tuple) or len(identifier) != 5:
            raise TypeError("a storage without a description")
        _, number_type, name, _, elements = identifier
        if not isinstance(number_type, torch.dtype) or not isinstance(name, str) or not isinstance(elements, int):
            raise TypeError("a storage without a type, name or size")
        if name not in self._storages:
            start, size = self._place(f"{self._folder}data/{name}")
            if not 0 <= elements * number_type.itemsize <= size:
                raise ValueError(f"tensor data {name[:20]!r} cut short")
            if elements == 0:
                return torch.empty(0, dtype=number_type)
            numbers = torch.frombuffer(self._content, dtype=number_type, count=elements, offset=start)
            self._storages[name] = numbers.clone() if start % number_type.itemsize else numbers
        return self._storages[name]

    def _place(self, name: str) -> tuple[int, int]:
        """Where a member's bytes start in the file, and how many they are."""
        info = self._members.get(name)
        if info is None:
            raise ValueError(f"it has no {name[:80]!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise UserError(f"{self._path}: refused: {name[:80]!r} in it is compressed, which torch.save never does")
        lengths = self._content[info.header_offset + 26 : info.header_offset + _LOCAL_HEADER_BYTES]
        start = info.header_offset + _LOCAL_HEADER_BYTES + sum(struct.unpack("<HH", lengths))
        if start + info.file_size > len(self._content):
            raise zipfile.BadZipFile("cut short")
        return start, info.file_size

    def _mapping(self, *items: object) -> _Mapping:
        if items:
            raise TypeError("an OrderedDict that is made of another value")
        return _Mapping()

    def _tensor(self, storage: object, offset: object, size: object, stride: object, *_: object) -> Tensor:
        if not isinstance(storage, Tensor) or not isinstance(offset, int):
            raise TypeError("a tensor without data")
        tensor = storage.as_strided(_whole_numbers(size), _whole_numbers(stride), storage.storage_offset() + offset)
        if tensor.numel() > storage.numel():
            raise ValueError("a tensor larger than its data")
        self._bytes_left -= tensor.nbytes
        if self._bytes_left < 0:
            raise ValueError("tensors far larger than the file")
        return tensor

    def _parameter(self, tensor: object, *_: object) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise TypeError("a parameter without a tensor")
        return tensor

    def _number(self, number_type: object, content: object) -> float | int | bool:
        if not isinstance(number_type, _NumberType) or not isinstance(content, bytes):
            raise TypeError("a number without a type")
        return np.frombuffer(content, number_type.type, 1)[0].item()

    def _bytes(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("text that is not in latin1")
        return text.encode("latin1")


class _Function:
    """Stands for a function that a pickle names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def _whole_numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(isinstance(number, int) for number in value):
        raise TypeError("a shape that is not of whole numbers")
    return value
