"""Random parts of large sets, for figures whose work grows with the square of a set; a figure's note says so."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.evaluation.vectors import ClipVectors


def some_numbers(count: int, most: int, rng: np.random.Generator) -> Int[Tensor, "_"]:
    """The numbers below `count`, in order; where they are more than `most`, so many of them at random."""
    if count <= most:
        return torch.arange(count)
    return torch.from_numpy(np.sort(rng.choice(count, most, replace=False)))


def some_vectors(own: ClipVectors, most: int, rng: np.random.Generator) -> ClipVectors:
    """The vectors, or `most` of them at random."""
    if len(own.vectors) <= most:
        return own
    drawn = some_numbers(len(own.vectors), most, rng)
    return ClipVectors(own.vectors[drawn], own.clips[drawn])


def sample_note(what: str, most: int, *counts: int) -> str:
    """What a note adds where a set has more than `most`; else nothing."""
    return f"; of more than {most} {what} {most} at random" if max(counts) > most else ""
