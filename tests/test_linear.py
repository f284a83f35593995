"""Products with packed weights, and what happens where PyTorch's private operations are missing or fail."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from open_musiclm import devices
from open_musiclm.generation.decoding.packed_linear import PackedLinear

PRECISIONS = [torch.float32, torch.bfloat16]


def _weight(precision: torch.dtype) -> torch.Tensor:
    return torch.randn(96, 160, generator=torch.Generator().manual_seed(0)).to(precision)


def _inputs(precision: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator).to(precision) for shape in ((1, 160), (3, 1, 160), (2, 70, 160))]


def _refused(*arguments: object) -> None:
    raise RuntimeError("Unknown layout")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_product_is_pytorchs(precision: torch.dtype) -> None:
    weight = _weight(precision)
    product = PackedLinear(weight)
    tolerance = 1e-5 if precision == torch.float32 else 2e-2
    for x in _inputs(precision):
        torch.testing.assert_close(product(x), functional.linear(x, weight), atol=tolerance * 12, rtol=tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "operations",
    [
        SimpleNamespace(),
        SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True),
        SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True, _reorder_linear_weight=_refused),
        SimpleNamespace(
            _is_mkldnn_bf16_supported=lambda: True, _reorder_linear_weight=lambda weight, rows: weight
        ),  # no product
        SimpleNamespace(
            _is_mkldnn_bf16_supported=lambda: True,
            _reorder_linear_weight=lambda weight, rows: weight,
            _linear_pointwise=_refused,
        ),
    ],
    ids=["none there", "no packing", "packing fails", "no product", "product fails"],
)
def test_without_the_private_operations_pytorchs_product_is_used(
    monkeypatch: pytest.MonkeyPatch, operations: SimpleNamespace, precision: torch.dtype
) -> None:
    weight = _weight(precision)
    monkeypatch.setattr(torch.ops, "mkldnn", operations)
    product = PackedLinear(weight)
    assert not product.packed
    for x in _inputs(precision):
        assert torch.equal(product(x), functional.linear(x, weight))


@pytest.mark.parametrize("supported", [True, False, None])
def test_automatic_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch, supported: bool | None) -> None:
    name = "_is_avx512_bf16_supported"
    if supported is None:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    else:
        monkeypatch.setattr(torch.cpu, name, lambda: supported, raising=False)
    expected = "bfloat16" if supported else "float32"
    assert devices.choose_precision("auto", torch.device("cpu")) == expected
    assert devices.choose_precision("float32", torch.device("cpu")) == "float32"
