"""The largest batch of each stage that fits into a GPU: found by training steps, each in its own process."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import measure_alone

from open_musiclm import cli
from open_musiclm.config import StageName
from open_musiclm.errors import UserError

GIGABYTES = (8, 12, 24, 80)
LEFT_FREE = 0.1  # for the driver, fragments, and another program's window


def print_what_fits(
    path: Path,
    device: torch.device,
    stages: Sequence[StageName],
    step: Callable[..., Callable[[], object]],
    options: tuple[bool, bool],
) -> None:
    """Prints the largest batch, a power of two, whose step stays within 90% of each size; "-" for sizes above
    this GPU's. Raises UserError."""
    if device.type != "cuda":
        raise UserError("--fit: needs a GPU; a CPU's memory says nothing about a GPU's")
    cli.print_stdout("| stage | " + " | ".join(f"{size} GB" for size in GIGABYTES) + " |")
    cli.print_stdout("| --- " * (len(GIGABYTES) + 1) + "|")
    own = torch.cuda.get_device_properties(device).total_memory / 1e9 * 1.05  # GPUs have a little less than they say
    for name in stages:

        @functools.cache
        def peak(batch: int, name: StageName = name) -> float:
            try:
                return measure_alone(step, (path, name, str(device), batch, "bfloat16", *options), 2).megabytes
            except torch.OutOfMemoryError:
                return float("inf")

        cells = [_largest(peak, size * 1e9 / 2**20 * (1 - LEFT_FREE)) if size <= own else "-" for size in GIGABYTES]
        cli.print_stdout(f"| {name} | " + " | ".join(map(str, cells)) + " |")


def _largest(peak: Callable[[int], float], megabytes: float) -> int:
    """The largest power of two within the limit; 0 if a single example does not fit."""
    batch = 0
    while peak(max(2 * batch, 1)) <= megabytes:
        batch = max(2 * batch, 1)
    return batch
