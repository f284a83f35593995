"""A wave file that can be read while it is generated."""

import asyncio
import struct
from collections.abc import AsyncIterator

import torch
from jaxtyping import Float
from torch import Tensor

_BYTES = 2
_SECONDS_BETWEEN_LOOKS = 0.1


class LiveSound:
    """A 16-bit wav file in memory: its header says from the start how long it will be.

    One thread appends; any number of readers follow. Whoever reads it when it is forgotten goes on to its end.
    """

    def __init__(self, samples: int, sample_hz: int) -> None:
        size = samples * _BYTES
        layout = struct.pack("<IHHIIHH", 16, 1, 1, sample_hz, sample_hz * _BYTES, _BYTES, 8 * _BYTES)
        header = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)
        self.sample_hz, self.ended = sample_hz, False
        self._content = bytearray(header)
        self._samples = 0

    @property
    def seconds(self) -> float:
        """How much there is so far."""
        return self._samples / self.sample_hz

    def append(self, wave: Float[Tensor, "samples"]) -> None:
        """Adds samples at the end."""
        self._content += (wave.detach().to("cpu", torch.float32).clamp(-1, 1) * 32767).to(torch.int16).numpy().tobytes()
        self._samples += len(wave)

    def end(self) -> None:
        """Ends the sound: readers stop, also if it is shorter than planned."""
        self.ended = True

    def forget(self) -> None:
        """Frees the memory of the samples; later readers get none."""
        self._content = bytearray()

    async def follow(self) -> AsyncIterator[bytes]:
        """The file as it grows, until its end."""
        position, content = 0, self._content
        while True:
            ended = self.ended  # looked up first: what comes in between is still read
            block = bytes(content[position:])
            if block:
                position += len(block)
                yield block
            elif ended:
                return
            else:
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
