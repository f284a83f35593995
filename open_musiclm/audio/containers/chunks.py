"""WAV, RF64, AIFF, W64, CAF and AU: one stretch of samples, whose size a header before it states."""

from typing import BinaryIO, Literal, NamedTuple

from open_musiclm.audio.layout import PLAIN, Layout, Part

# What may follow the samples without a reason that is understood, such as a tag; zeros may, whatever their number.
_MOST_REST_BYTES = 1 << 12
_ZEROS_READ = 1 << 16
_MOST_CHUNKS = 10_000
_AU_HEADER_BYTES = 24
ByteOrder = Literal["little", "big"]


class _Samples(NamedTuple):
    """The stretch of samples: where the field of its size is, and what the size counts from."""

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
    b"RIFX": _Kind("big", 4, 4, False, 12, b"data", 2),
    b"FORM": _Kind("big", 4, 4, False, 12, b"SSND", 2),
    b"riff": _Kind("little", 16, 8, True, 40, b"data", 8),
    b"caff": _Kind("big", 4, 8, False, 8, b"data", 1),
}


def chunk_layout(file: BinaryIO, size: int) -> Layout:
    """The whole file, with the size of its samples corrected where the header cannot be right."""
    file.seek(0)
    kind = _KINDS.get(file.read(4))
    samples = None if kind is None else _samples_chunk(file, size, kind)
    if kind is None or samples is None or _is_right(file, size, samples, kind):
        return PLAIN
    counted = size - samples.first + (kind.name_bytes + kind.size_bytes if kind.counts_header else 0)
    if counted >= 1 << 8 * samples.field_bytes:
        return PLAIN  # more than the format can say
    return _with_field(samples.field, counted.to_bytes(samples.field_bytes, kind.byte_order), size)


def au_layout(file: BinaryIO, size: int) -> Layout:
    """The same for AU, whose header says where the samples begin and how many bytes they have."""
    file.seek(0)
    header = file.read(_AU_HEADER_BYTES)
    order: ByteOrder = "big" if header[:4] == b".snd" else "little"
    first, length = int.from_bytes(header[4:8], order), int.from_bytes(header[8:12], order)
    begins = first if _AU_HEADER_BYTES <= first < size else _AU_HEADER_BYTES
    samples = _Samples(8, 4, begins, length, 1)
    if size <= begins or (begins == first and _is_right(file, size, samples, None)) or size >= 1 << 32:
        return PLAIN
    return _with_field(4, begins.to_bytes(4, order) + (size - begins).to_bytes(4, order), size)


def _with_field(place: int, content: bytes, size: int) -> Layout:
    return Layout((Part(((0, place), content, (place + len(content), size))),))


def _samples_chunk(file: BinaryIO, size: int, kind: _Kind) -> _Samples | None:
    position, header_bytes = kind.first_chunk, kind.name_bytes + kind.size_bytes
    for _ in range(_MOST_CHUNKS):
        header = _header(file, position, kind)
        if header is None:
            return None
        name, length = header
        first = position + header_bytes
        if name.startswith(kind.samples):
            return _Samples(position + kind.name_bytes, kind.size_bytes, first, length, kind.aligned_to)
        position = first + length + -length % kind.aligned_to
        if position >= size:
            return None
    return None


def _header(file: BinaryIO, position: int, kind: _Kind) -> tuple[bytes, int] | None:
    """The name and the payload's bytes of the chunk at `position`; None where there is none."""
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
    if header is None:
        return False
    name, length = header
    return name[:4].isascii() and name[:4].decode("ascii").isprintable() and 0 <= length <= rest
