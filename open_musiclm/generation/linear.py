"""Products of a few rows with a large matrix, at the speed of reading the matrix.

Generation multiplies one to a dozen rows for every token, and PyTorch's own product then reads a row-major matrix at a
fraction of the memory's speed. With oneDNN's blocked layout it does not; other devices read the matrix as it is.
"""

import platform

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# What oneDNN is told about the number of rows: with 64 its layout suits a prefix of hundreds and single rows alike.
_EXPECTED_ROWS = 64


class RowProduct:
    """x @ weight.T with a weight that never changes."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"]) -> None:
        weight = weight.detach().contiguous()
        self.blocked = _can_be_blocked(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _EXPECTED_ROWS) if self.blocked else weight

    def __call__(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """The product, in the weight's precision."""
        if self.blocked:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return functional.linear(x, self.weight)


def _can_be_blocked(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
