"""Vectors of many clips: written to a temporary file, so that memory is bounded, and read from it as one tensor."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.errors import UserError


@dataclass(frozen=True)
class ClipVectors:
    """The vectors of all clips of a set, and the clip (its number in the set) that each vector is of."""

    vectors: Float[Tensor, "vectors dim"]
    clips: Int[Tensor, "vectors"]

    def of_each(self) -> list[Float[Tensor, "_ dim"]]:
        """The vectors of every clip."""
        return list(self.vectors.split(torch.bincount(self.clips).tolist()))


class VectorFile:
    """Vectors of clips, one after the other, in a file that goes when nobody uses it any more."""

    def __init__(self) -> None:
        with _user_errors():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed when it is mapped)
        self._dim = 0
        self._counts: list[int] = []

    def append(self, vectors: Float[Tensor, "_ dim"]) -> None:
        """The vectors of the next clip, one or more, all of one size. Raises UserError if writing fails."""
        if vectors.shape[1] != self._dim and self._counts:
            raise ValueError(f"vectors of {vectors.shape[1]} numbers after those of {self._dim}")
        self._dim = vectors.shape[1]
        with _user_errors():
            self._file.write(vectors.float().contiguous().numpy().tobytes())
        self._counts.append(len(vectors))

    def read(self) -> ClipVectors:
        """All of them, once; the tensor is the mapped file. Raises UserError if writing fails."""
        with _user_errors(), self._file:
            self._file.flush()
            mapped = np.memmap(self._file, np.float32, "r+", shape=(sum(self._counts), self._dim))
        clips = torch.repeat_interleave(torch.arange(len(self._counts)), torch.tensor(self._counts))
        return ClipVectors(torch.from_numpy(mapped), clips)


@contextmanager
def _user_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder, reason = tempfile.gettempdir(), error.strerror or error
        raise UserError(f"{folder}: cannot write temporary files: {reason}; name another folder by TMPDIR") from error


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
