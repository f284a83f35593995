"""NaN and infinity are refused when weights are read, and before they are written."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from open_musiclm.errors import UserError


def check_finite(tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Raises UserError that names `source` and the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise UserError(
                f"{source}: {name[:200]!r} holds NaN or infinity: the file is damaged or its training diverged; "
                "take an earlier checkpoint"
            )


def named_tensors(content: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested mappings and lists, named by their path: `state.0.exp_avg`."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    lowest, highest = (tensor if tensor.element_size() > 1 else tensor.float()).aminmax()  # NaN is both
    return math.isfinite(lowest.item()) and math.isfinite(highest.item())
