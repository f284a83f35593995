"""Finds the sound in a file, by its format. A header is never trusted, but compared with the rest of the file."""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from open_musiclm.audio.containers.chunks import chunk_layout
from open_musiclm.audio.containers.flac import flac_layout
from open_musiclm.audio.containers.id3 import after_id3
from open_musiclm.audio.containers.mpeg import mpeg_layout
from open_musiclm.audio.containers.ogg import ogg_layout
from open_musiclm.audio.layout import PLAIN, Layout

_BUFFER_BYTES = 1 << 17
_FILES_REMEMBERED = 4096
_KINDS: dict[bytes, Callable[[BinaryIO, int], Layout]] = {
    b"OggS": ogg_layout,
    b"fLaC": flac_layout,
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"caff", b".snd", b"dns."), chunk_layout),
}


def layout_of(path: Path, status: os.stat_result) -> Layout:
    """The layout of a file, cached as long as its size and time of change stay. Raises OSError."""
    return _layout(path, status.st_size, status.st_mtime_ns)


@lru_cache(_FILES_REMEMBERED)
def _layout(path: Path, size: int, modified_ns: int) -> Layout:
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        start = after_id3(file)
        file.seek(start)
        head = file.read(4)
        find = _KINDS.get(head)
        if find is not None:
            return find(file, size)
        if start or path.suffix.lower() == ".mp3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
            return mpeg_layout(file, size)
    return PLAIN
