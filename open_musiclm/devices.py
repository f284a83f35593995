"""Devices (cuda, mps, cpu) and precisions."""

from functools import cache

import torch
from torch.nn import functional

from open_musiclm.config import Precision, TrainingPrecision
from open_musiclm.errors import UserError, first_line


def choose_device(name: str | None) -> torch.device:
    """The device `name`; without a name cuda, mps or cpu, the first there is. A GPU that is named by its number becomes
    the current one, on which CUDA graphs are captured. Raises UserError."""
    if name is None:
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not available here ({first_line(error)}); use cuda, mps or cpu") from error
    if device.type == "meta":  # a meta device has no data
        raise UserError(f"--device {name}: holds no numbers; use cuda, mps or cpu")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def choose_precision(name: TrainingPrecision, device: torch.device) -> Precision:
    """The precision `name`; auto is bfloat16 where the device computes it natively, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and _cpu_has_bfloat16() else "float32"


def matmul_autocast(name: TrainingPrecision, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in that precision; weights stay as they are."""
    bfloat16 = choose_precision(name, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


def convolution_autocast(name: TrainingPrecision, device: torch.device) -> torch.autocast:
    """`matmul_autocast` for convolutions of few channels: float32 on a CPU that computes them wrongly in bfloat16."""
    return matmul_autocast("float32" if device.type == "cpu" and not _cpu_convolves_in_bfloat16() else name, device)


@cache
def _cpu_convolves_in_bfloat16() -> bool:
    """Whether a bfloat16 convolution of 16 channels with a stride of 8 is right.

    oneDNN's for AMX (torch 2.11) are wrong with 8, 16 or 24 channels and a stride that is a multiple of 4.
    """
    rng = torch.Generator().manual_seed(0)
    waves, weight = torch.randn(2, 16, 256, generator=rng), torch.randn(32, 16, 16, generator=rng)
    right = functional.conv1d(waves, weight, stride=8)
    found = functional.conv1d(waves.bfloat16(), weight.bfloat16(), stride=8).float()
    return bool((found - right).norm() < 0.1 * right.norm())


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has AVX-512's bfloat16 instructions; False if this PyTorch does not say."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and bool(supported())
