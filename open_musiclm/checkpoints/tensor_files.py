"""Safetensors files, read with bounds: the header no larger than one needs, every number finite."""

import os
import struct
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.errors import UserError

_MOST_HEADER_BYTES = 1 << 24  # 100 for each tensor


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata. Raises UserError that names the file."""
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or _one_line(error)}") from error
    except (SafetensorError, ValueError, RuntimeError, MemoryError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a whole safetensors file: {_one_line(error)}") from error
    check_finite(tensors, path)
    return tensors, metadata


def _check_header(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file")
    with path.open("rb") as file:
        start = file.read(8)
        size = os.fstat(file.fileno()).st_size
    if len(start) < 8:
        raise ValueError("cut short")
    (header,) = struct.unpack("<Q", start)
    if header > min(size, _MOST_HEADER_BYTES):
        raise ValueError(f"a header of {header} bytes in a file of {size}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
