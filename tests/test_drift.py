"""The figures of benchmarks/drift.py: what stays the same over minutes of music."""

import math
import sys

import numpy as np
import pytest
import torch
from helpers.paths import REPOSITORY

from open_musiclm.audio import Sound

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from drift import Part, key_of, parts_of, row

C_MAJOR, A_MINOR = (0, 2, 4, 5, 7, 9, 11), (9, 11, 0, 2, 4, 5, 8)


def chroma(scale: tuple[int, ...], tonic: int) -> np.ndarray:
    """Every note of a scale, and its first one more."""
    return np.bincount([*scale, tonic, tonic], minlength=12).astype(float)


@pytest.mark.parametrize("steps", range(12))
def test_keys_are_found_by_their_scale(steps: int) -> None:
    assert key_of(np.roll(chroma(C_MAJOR, 0), steps)) == steps
    assert key_of(np.roll(chroma(A_MINOR, 9), steps)) == 12 + (9 + steps) % 12


def test_a_part_is_compared_with_the_first() -> None:
    first = Part(torch.tensor([1.0, 0.0]), chroma(C_MAJOR, 0), 100.0)
    other = Part(torch.tensor([0.6, 0.8]), np.roll(chroma(C_MAJOR, 0), 6), 200.0)
    faster = Part(other.embedding, first.chroma, 130.0)
    prompt = torch.tensor([0.0, 1.0])
    assert row(prompt, first, first) == pytest.approx((0, 1, 1, 1, 1))
    similarity, to_first, correlation, key_kept, tempo_kept = row(prompt, first, other)
    assert (similarity, to_first) == pytest.approx((0.8, 0.6))
    assert correlation < 0
    assert (key_kept, tempo_kept) == (0, 1)  # twice the tempo counts as the same
    assert row(prompt, first, faster)[3:] == (1, 0)
    assert math.isnan(row(prompt, Part(first.embedding, first.chroma, math.nan), first)[4])


def test_parts_are_whole() -> None:
    assert [part.seconds for part in parts_of(Sound(torch.zeros(2500), 1000), 1.0)] == [1.0, 1.0]
