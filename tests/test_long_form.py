"""Music of minutes: memory that does not grow with it, and the semantic stage's advance."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from helpers.small_stack import Stack

from open_musiclm.config import GenerationConfig
from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.generate_files import generate_files
from open_musiclm.generation.spool import SpooledWave

LONG = GenerationConfig(num_samples=1, max_batch_size=1, return_coarse_wave=True)
MEGABYTE = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is in Linux's C library")
def test_memory_does_not_grow_with_the_music(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are those of any music, so their tokens are drawn here without a transformer."""
    monkeypatch.setattr(FlatGenerator, "generate", drawn)
    monkeypatch.setattr("open_musiclm.generation.generate_files.STREAMED_SECONDS", 1.0)
    held: list[int] = []
    append = SpooledWave.append

    def watched(spool: SpooledWave, wave: torch.Tensor) -> None:
        append(spool, wave)
        ctypes.CDLL(None).malloc_trim(0)  # else what is free already could take in all that grows
        held.append(psutil.Process().memory_info().rss)

    monkeypatch.setattr(SpooledWave, "append", watched)
    model = stack.musiclm(("semantic", "coarse"))
    for seconds in (10, 320):  # the first warms up
        held.clear()
        model.generation_config = LONG.updated({"duration": seconds})
        list(generate_files(model, ["a tune"], tmp_path, {}))
    assert steady_growth(held) < 14 * MEGABYTE  # the wave alone has 27 MB


def steady_growth(held: list[int]) -> float:
    """The growth from the first to the last of 16 parts, by the median from one part to the next: what other tests of
    the process left behind may grow or shrink once."""
    parts = [float(np.mean(part)) for part in np.array_split(held, 16)]
    return 15 * float(np.median(np.diff(parts)))


def drawn(
    generator: FlatGenerator, conditioning: object, context: torch.Tensor, frames: int, *rest: object
) -> torch.Tensor:
    stream = generator.predicted
    return torch.randint(stream.codebook_size, (len(context), frames, stream.quantizers))


@pytest.mark.parametrize(("semantic_advance", "context"), [(0.5, 49), (0.2, 79), (0.8, 19)])
def test_the_semantic_stage_remembers_what_it_does_not_advance(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, semantic_advance: float, context: int
) -> None:
    """Its window has two seconds, at 50 tokens a second; a stretch loses its last token."""
    contexts: dict[str, list[int]] = {}

    def watched(
        generator: FlatGenerator, conditioning: object, known: torch.Tensor, frames: int, *rest: object
    ) -> torch.Tensor:
        contexts.setdefault(generator.name, []).append(known.shape[1])
        return drawn(generator, conditioning, known, frames)

    monkeypatch.setattr(FlatGenerator, "generate", watched)
    model = stack.musiclm(("semantic", "coarse"))
    config = LONG.updated({"duration": 6.0, "semantic_advance": semantic_advance})
    (wave,) = model.generate("a tune", config=config)
    assert wave.shape == (6 * 24000,)
    first, *others, last = contexts["semantic"]
    assert first == 0
    assert set(others) == {context}
    assert last >= context
    assert set(contexts["coarse"][1:-1]) == {9}  # half of 1.2 s, at 15 frames a second
