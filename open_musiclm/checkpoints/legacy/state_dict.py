"""Tensors out of a `.pt` file of torch.save, without running anything that the file asks for.

Such a file is a zip that holds a pickle and, uncompressed, the bytes of each tensor. What the pickle may name is
the short list below, and each name stands for a function of this file; any other name is refused. `torch.load`
with `weights_only=True` is as strict, but reads only pickles of protocol 2, and LAION's are of protocol 4.
"""

import mmap
import pickle
import pickletools
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
_MOST_PICKLE_BYTES = 1 << 26
_KEEPING = ("PUT", "BINPUT", "LONG_BINPUT")
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
    Raises UserError where the file is damaged, or names or compresses anything.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
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
    """A file that holds tensors by name and nothing else. Raises UserError."""
    content = read_torch_file(path)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: {str(name)[:80]!r} is a {type(value).__name__}; only named tensors were expected")
    return content


def _check_memo(steps: bytes) -> None:
    """Raises ValueError where a step keeps a value under a number that no real pickle reaches.

    The unpickler makes room for all numbers up to it, so that ten bytes could ask for all of the memory.
    """
    for step, argument, _ in pickletools.genops(steps):
        if step.name in _KEEPING and isinstance(argument, int) and not 0 <= argument < len(steps):
            raise ValueError(f"a value is kept under number {argument}, in a pickle of {len(steps)} bytes")


class _Mapping(dict):
    """Stands for an OrderedDict; the attributes that a state dict has beside its items are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _NumberType:
    """Stands for a numpy.dtype."""

    __slots__ = ("_type",)

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise ValueError(f"a type {str(code)[:20]!r} that is not a number's")
        self._type = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._type = self._type.newbyteorder(state[1])

    def number(self, content: bytes) -> float | int | bool:
        return np.frombuffer(content, self._type, 1)[0].item()


class _Reader(pickle.Unpickler):
    """The pickle of one file. Bound methods stand for what it calls: they cannot be altered by the pickle."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self._members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise zipfile.BadZipFile("no data.pkl")
        self._folder = pickles[0].removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        start, size = self._place(pickles[0])
        if size > _MOST_PICKLE_BYTES:
            raise ValueError(f"its pickle is larger than {_MOST_PICKLE_BYTES >> 20} MiB")
        steps = content[start : start + size]
        _check_memo(steps)
        super().__init__(BytesIO(steps))
        self._allowed: dict[str, Callable[..., object]] = {
            "collections.OrderedDict": self._mapping,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "numpy.dtype": self._number_type,
            "numpy.core.multiarray.scalar": self._number,
            "numpy._core.multiarray.scalar": self._number,
            "_codecs.encode": self._bytes,
        }

    def read(self) -> object:
        order, size = self._place(f"{self._folder}byteorder") if f"{self._folder}byteorder" in self._members else (0, 0)
        if self._content[order : order + size] not in (b"", b"little"):
            raise ValueError("its numbers are big-endian")
        return self.load()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle: a tensor's type, or a method of this reader. Raises UserError."""
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if f"{module}.{name}" not in self._allowed:
            raise UserError(
                f"{self._path}: refused: its pickle names {f'{module}.{name}'[:80]!r}, which weights never need; "
                "do not trust this file"
            )
        return self._allowed[f"{module}.{name}"]

    def persistent_load(self, storage: Any) -> Tensor:
        """The numbers [elements] of a storage ('storage', type, name, device, elements), mapped from the file."""
        _, number_type, name, _, elements = storage
        if not isinstance(number_type, torch.dtype):
            raise TypeError("a storage without a type")
        if name not in self._storages:
            start, size = self._place(f"{self._folder}data/{name}")
            if not 0 <= elements * number_type.itemsize <= size:
                raise ValueError(f"tensor data {str(name)[:20]!r} cut short")
            if elements == 0:
                return torch.empty(0, dtype=number_type)
            numbers = torch.frombuffer(self._content, dtype=number_type, count=elements, offset=start)
            self._storages[name] = numbers.clone() if start % number_type.itemsize else numbers
        return self._storages[name]

    def _place(self, name: str) -> tuple[int, int]:
        """Where a member's bytes start in the file, and how many they are."""
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise UserError(f"{self._path}: refused: {name[:80]!r} in it is compressed, which torch.save never does")
        lengths = self._content[info.header_offset + 26 : info.header_offset + _LOCAL_HEADER_BYTES]
        start = info.header_offset + _LOCAL_HEADER_BYTES + sum(struct.unpack("<HH", lengths))
        if start + info.file_size > len(self._content):
            raise zipfile.BadZipFile("cut short")
        return start, info.file_size

    def _mapping(self, *items: object) -> _Mapping:
        return _Mapping(*items)

    def _tensor(self, storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
        tensor = storage.as_strided(size, stride, storage.storage_offset() + offset)
        if tensor.numel() > storage.numel():
            raise ValueError("a tensor larger than its data")
        return tensor

    def _parameter(self, tensor: Tensor, *_: object) -> Tensor:
        return tensor

    def _number_type(self, code: object, *_: object) -> _NumberType:
        return _NumberType(code)

    def _number(self, number_type: _NumberType, content: bytes) -> float | int | bool:
        return number_type.number(content)

    def _bytes(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"text in {str(encoding)[:20]!r}")
        return text.encode("latin1")
