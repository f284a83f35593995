"""WAV, RF64, AIFF, W64, CAF and AU: one stretch of samples, whose size a header before it states."""

from typing import BinaryIO, NamedTuple

from open_musiclm.audio.layout import PLAIN, Layout, Part

# What may follow the samples without a reason that is understood, such as a tag; zeros may, whatever their number.
_MOST_REST_BYTES = 1 << 12
_ZEROS_READ = 1 << 16
_MOST_CHUNKS = 10_000


class _Samples(NamedTuple):
    """The stretch of samples: where the field of its size is, and what the size counts from."""

    field: int
    field_bytes: int
    first: int  # the byte from which on the size counts
    size: int
    aligned_to: int


class _Kind(NamedTuple):
    """How a container writes its chunks: a name, then a size, which may count the name and itself."""

    byte_order: str
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
    magic = file.read(4)
    kind = _KINDS.get(magic)
    samples = _samples_of_au(file, magic) if kind is None else _samples_chunk(file, size, kind)
    if samples is None or samples.first >= size:
        return PLAIN
    available = size - samples.first
    rest = available - samples.size
    if rest == 0 or (rest > 0 and _is_explained(file, samples, rest, kind)):
        return PLAIN
    order = "little" if (kind is not None and kind.byte_order == "little") or magic == b"dns." else "big"
    counted = available + (kind.name_bytes + kind.size_bytes if kind is not None and kind.counts_header else 0)
    if counted >= 1 << 8 * samples.field_bytes:
        return PLAIN  # more than the format can say
    field = counted.to_bytes(samples.field_bytes, order)  # type: ignore[arg-type]
    return Layout((Part(((0, samples.field), field, (samples.field + len(field), size))),))


def _samples_of_au(file: BinaryIO, magic: bytes) -> _Samples | None:
    header = file.read(8)
    if magic not in (b".snd", b"dns.") or len(header) < 8:
        return None
    order = "big" if magic == b".snd" else "little"
    first, size = (int.from_bytes(field, order) for field in (header[:4], header[4:]))  # type: ignore[arg-type]
    return _Samples(8, 4, first, size, 1)


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
    length = int.from_bytes(header[kind.name_bytes :], kind.byte_order)  # type: ignore[arg-type]
    return header[: kind.name_bytes], length - (len(header) if kind.counts_header else 0)


def _is_explained(file: BinaryIO, samples: _Samples, rest: int, kind: _Kind | None) -> bool:
    """Whether what follows the samples is something else: short, zeros, or a chunk that fits."""
    if rest <= _MOST_REST_BYTES and rest <= samples.size:
        return True
    after = samples.first + samples.size + -samples.size % samples.aligned_to
    file.seek(after)
    if not any(file.read(_ZEROS_READ)):
        return samples.size > 0
    header = None if kind is None else _header(file, after, kind)
    if header is None:
        return False
    name, length = header
    return name[:4].isascii() and name[:4].decode("ascii").isprintable() and 0 <= length <= rest
