"""Products of a few vectors with a large matrix, at the speed of reading the matrix.

Generation multiplies one to a dozen vectors for every token. PyTorch's own product then reads a row-major matrix at a
fraction of the memory's speed; with oneDNN's packed layout it does not. Only a CPU has that layout, through private
operations of PyTorch; everywhere else, and where they fail, the product is PyTorch's own.
"""

import platform

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# The number of vectors that oneDNN packs for: with 64 its layout is fast for a prefix of hundreds and for one vector.
_EXPECTED_ROWS = 64


class PackedLinear:
    """x @ weight.T with a weight that never changes. `packed` says whether it is in oneDNN's layout."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"]) -> None:
        weight = weight.detach().contiguous()
        packed = _pack(weight)
        self.packed = packed is not None
        self.weight = weight if packed is None else packed

    def __call__(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The product, in the weight's precision."""
        return _packed_product(x, self.weight) if self.packed else functional.linear(x, self.weight)


def _pack(weight: Float[Tensor, "outputs inputs"]) -> Tensor | None:
    """The weight in oneDNN's layout; None if that is not available."""
    try:
        if not _can_be_packed(weight):
            return None
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _EXPECTED_ROWS)
        _packed_product(weight.new_zeros(1, weight.shape[1]), packed)
    except (AttributeError, RuntimeError):  # another version of PyTorch: an operation is missing or has other arguments
        return None
    return packed


def _packed_product(x: Float[Tensor, "*batch inputs"], packed: Tensor) -> Float[Tensor, "*batch outputs"]:
    return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _can_be_packed(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
