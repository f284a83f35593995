"""WAV, RF64, AIFF, W64, CAF and AU: one block of samples, whose size is in the header.

Concatenated files are one part each, as long as the sizes are right. If a size is wrong, the rest of the file counts as
samples of that part.
"""

import re
from typing import BinaryIO, Literal, NamedTuple

from open_musiclm.audio.containers.id3 import after_id3
from open_musiclm.audio.layout import MOST_PARTS, PLAIN, Layout, Part, Span, TooManyParts

# Bytes that may follow the samples for unknown reasons, such as a tag; any number of zeros may follow.
_MOST_REST_BYTES = 1 << 12
_ZEROS_READ = 1 << 16
_MOST_CHUNKS = 10_000
_AU_HEADER_BYTES = 24
_AU = (b".snd", b"dns.")
_SIZE_IS_ELSEWHERE = 0xFFFFFFFF
# How files begin: names of kinds, with what stands beside them; of AU an offset below 65,536 and a known encoding.
_BEGINNING = re.compile(
    rb"(RIFF|RIFX|RF64).{4}WAVE|FORM.{4}AIF[FC]|riff\x2e\x91\xcf\x11|caff\0[\1\2]"
    rb"|\.snd\0\0.{6}\0\0\0[\1-\x1b]|dns\..{2}\0\0.{4}[\1-\x1b]\0\0\0",
    re.DOTALL,
)
_BEGINNING_BYTES = 16
ByteOrder = Literal["little", "big"]


class _Samples(NamedTuple):
    """The block of samples: the position of its size field, and the byte that the size counts from."""

    field: int
    field_bytes: int
    first: int  # the byte from which on the size counts
    size: int
    aligned_to: int


class _Kind(NamedTuple):
    """How a container writes its chunks: a name, then a size, which may count the name and itself."""

    byte_order: ByteOrder
    name_bytes: int
    size_bytes: int
    counts_header: bool
    first_chunk: int
    samples: bytes  # the (beginning of the) name of the chunk that holds samples
    aligned_to: int


_KINDS = {
    b"RIFF": _Kind("little", 4, 4, False, 12, b"data", 2),
    b"RF64": _Kind("little", 4, 4, False, 12, b"data", 2),
    b"RIFX": _Kind("big", 4, 4, False, 12, b"data", 2),
    b"FORM": _Kind("big", 4, 4, False, 12, b"SSND", 2),
    b"riff": _Kind("little", 16, 8, True, 40, b"data", 8),
    b"caff": _Kind("big", 4, 8, False, 8, b"data", 1),
}


def chunk_layout(file: BinaryIO, size: int) -> Layout:
    """One part for each of joined files, with the size of its samples corrected where its header cannot be right.

    Raises TooManyParts.
    """
    parts: list[Part] = []
    start: int | None = 0
    while start is not None:
        file.seek(start)
        is_au = file.read(4) in _AU
        part, start = _au_part(file, (start, size)) if is_au else _chunk_part(file, (start, size))
        parts.append(part)
        if len(parts) > MOST_PARTS:
            raise TooManyParts
    return PLAIN if parts == [Part(((0, size),))] else Layout(tuple(parts))


def _chunk_part(file: BinaryIO, span: Span) -> tuple[Part, int | None]:
    """The file that begins the span, and where the next one begins if there is one."""
    start, end = span
    file.seek(start)
    kind = _KINDS.get(file.read(4))
    samples = None if kind is None else _samples_chunk(file, span, kind)
    if kind is None or samples is None:
        return Part((span,)), None
    following = _following_file(file, samples, end, kind)
    if following is not None or _is_right(file, end, samples, kind):
        return Part(((start, following or end),)), following
    counted = end - samples.first + (kind.name_bytes + kind.size_bytes if kind.counts_header else 0)
    if counted >= 1 << 8 * samples.field_bytes:
        return Part((span,)), None  # more than the format can say
    return _with_field(span, samples.field, counted.to_bytes(samples.field_bytes, kind.byte_order)), None


def _au_part(file: BinaryIO, span: Span) -> tuple[Part, int | None]:
    """The same for AU, whose header says where the samples begin and how many bytes they have."""
    start, end = span
    file.seek(start)
    header = file.read(_AU_HEADER_BYTES)
    order: ByteOrder = "big" if header[:4] == b".snd" else "little"
    offset, length = int.from_bytes(header[4:8], order), int.from_bytes(header[8:12], order)
    is_offset = _AU_HEADER_BYTES <= offset < end - start
    begins = start + (offset if is_offset else _AU_HEADER_BYTES)
    samples = _Samples(start + 8, 4, begins, length, 1)
    following = _following_file(file, samples, end, None) if is_offset else None
    if end <= begins or following is not None or (is_offset and _is_right(file, end, samples, None)):
        return Part(((start, following or end),)), following
    if end - begins >= 1 << 32:
        return Part((span,)), None
    sizes = (begins - start).to_bytes(4, order) + (end - begins).to_bytes(4, order)
    return _with_field(span, start + 4, sizes), None


def _with_field(span: Span, place: int, content: bytes) -> Part:
    return Part(((span[0], place), content, (place + len(content), span[1])))


def _following_file(file: BinaryIO, samples: _Samples, end: int, kind: _Kind | None) -> int | None:
    """Where another file begins: right after the samples, or after the chunks and tags that follow them."""
    position = samples.first + samples.size
    for _ in range(_MOST_CHUNKS):
        if position >= end or samples.size <= 0:
            return None
        for place in (position, position + -(position - samples.first) % samples.aligned_to):
            place = after_id3(file, place)
            file.seek(place)
            if _BEGINNING.match(file.read(_BEGINNING_BYTES)):
                return place
        header = None if kind is None else _header(file, place, kind)
        if kind is None or header is None or not _is_chunk(header, end - place):
            return None
        position = place + kind.name_bytes + kind.size_bytes + header[1]
    return None


def _is_chunk(header: tuple[bytes, int], rest: int) -> bool:
    """Whether the name of a chunk is text, and its payload no longer than the rest of the file."""
    name, length = header
    return name[:4].isascii() and name[:4].decode("ascii").isprintable() and 0 <= length <= rest


def _samples_chunk(file: BinaryIO, span: Span, kind: _Kind) -> _Samples | None:
    position, header_bytes = span[0] + kind.first_chunk, kind.name_bytes + kind.size_bytes
    large: _Samples | None = None  # where RF64 says the size, which is too large for the chunk's own field
    for _ in range(_MOST_CHUNKS):
        header = _header(file, position, kind)
        if header is None:
            return None
        name, length = header
        first = position + header_bytes
        if name.startswith(kind.samples):
            if large is not None and length == _SIZE_IS_ELSEWHERE:
                return large._replace(first=first)
            return _Samples(position + kind.name_bytes, kind.size_bytes, first, length, kind.aligned_to)
        if name == b"ds64":
            large = _Samples(first + 8, 8, 0, _number(file, first + 8, 8, kind.byte_order), kind.aligned_to)
        position = first + length + -length % kind.aligned_to
        if position >= span[1]:
            return None
    return None


def _header(file: BinaryIO, position: int, kind: _Kind) -> tuple[bytes, int] | None:
    """The name and the payload's bytes of the chunk at `position`; None if there is none."""
    file.seek(position)
    header = file.read(kind.name_bytes + kind.size_bytes)
    if len(header) < kind.name_bytes + kind.size_bytes:
        return None
    length = int.from_bytes(header[kind.name_bytes :], kind.byte_order)
    return header[: kind.name_bytes], length - (len(header) if kind.counts_header else 0)


def _is_right(file: BinaryIO, size: int, samples: _Samples, kind: _Kind | None) -> bool:
    """Whether the samples end with the file, or before something else: something short, zeros, or a chunk that fits."""
    rest = size - samples.first - samples.size
    if rest == 0 or samples.first >= size:
        return True
    if rest < 0 or samples.size <= 0:
        return False
    if rest <= min(_MOST_REST_BYTES, samples.size):
        return True
    after = samples.first + samples.size + -samples.size % samples.aligned_to
    file.seek(after)
    if not any(file.read(_ZEROS_READ)):
        return True
    header = None if kind is None else _header(file, after, kind)
    return header is not None and _is_chunk(header, rest)


def _number(file: BinaryIO, position: int, width: int, order: ByteOrder) -> int:
    file.seek(position)
    return int.from_bytes(file.read(width), order)
