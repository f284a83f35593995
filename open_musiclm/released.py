"""Checkpoints released by the earlier implementation, read without executing anything in them."""

from pathlib import Path

from torch import Tensor


def read(path: Path, kind: str) -> dict[str, Tensor]:
    """Tensors of a released file under our parameter names. Raises UserError."""
    raise AssertionError(f"{path} {kind}")
