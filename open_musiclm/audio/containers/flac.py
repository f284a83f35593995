"""FLAC (RFC 9639): the length in STREAMINFO is compared with the sample numbers of the last frames.

Concatenated files are one part each; their starts are found by reading the whole file. This is done if the last frame
is not the one that the header states, or if the sample numbers of some frames do not rise.
"""

import re
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import BinaryIO, NamedTuple

from open_musiclm.audio.containers.id3 import after_id3
from open_musiclm.audio.layout import MOST_PARTS, PLAIN, Layout, Part, Span, TooManyParts, is_truncated

_STREAMINFO_BYTES = 34
_MARKER = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # and STREAMINFO's header, with a bit that says whether a block follows
_MARKER_BYTES = 8
_LENGTH_AT = 8 + 10  # from "fLaC" on: 64 bits, the last 36 of which are the length
_LENGTH_BITS = 36
_TAIL_BYTES = 1 << 18
_SMALL_FILE_BYTES = 1 << 21  # is read whole
# Uneven, so that joined files of one length are at different places.
_PROBED_SHARES = (0.06, 0.17, 0.29, 0.38, 0.51, 0.59, 0.72, 0.83, 0.91)
_PROBE_BYTES = 1 << 16
_SEARCH_BYTES = 1 << 20
_LONGEST_FRAME_HEADER = 16
_CRC_POLYNOMIAL = 0x07


class _Frame(NamedTuple):
    first: int  # sample
    end: int


def flac_layout(file: BinaryIO, size: int) -> Layout:
    """One part for each of joined files; one whose header says another length than its last frames is measured.

    Raises TooManyParts.
    """
    start = after_id3(file)
    whole = _part(file, (start, size), is_only=True)
    if size > _SMALL_FILE_BYTES and not whole.measured and _rises(file, (start, size)):
        return PLAIN
    starts = [start, *islice(_markers(file, start + 1), MOST_PARTS)]
    if len(starts) > MOST_PARTS:
        raise TooManyParts
    if len(starts) == 1:
        return Layout((whole,)) if whole.measured else PLAIN
    spans = zip(starts, [*starts[1:], size], strict=True)
    return Layout(tuple(_part(file, span, is_only=False) for span in spans))


def _part(file: BinaryIO, span: Span, is_only: bool) -> Part:
    """One file, to be measured where its header does not fit its last frames and it does not just lack its end."""
    start, end = span
    file.seek(start)
    head = file.read(8 + _STREAMINFO_BYTES)
    if len(head) < 8 + _STREAMINFO_BYTES or head[4] & 0x7F:
        return Part((span,))
    bits = int.from_bytes(head[_LENGTH_AT : _LENGTH_AT + 8], "big")
    promised = bits & ((1 << _LENGTH_BITS) - 1)
    ends = _ends_of_frames(_frames_in(file, (max(start, end - _TAIL_BYTES), end), _block_sizes(head)))
    found = max(ends, default=0)
    if promised and (promised in ends or not found or (is_only and is_truncated(promised, found))):
        return Part((span,))
    longest = min(2 * found or (1 << _LENGTH_BITS) - 1, (1 << _LENGTH_BITS) - 1)
    bits = bits >> _LENGTH_BITS << _LENGTH_BITS | longest
    patched = head[:_LENGTH_AT] + bits.to_bytes(8, "big") + head[_LENGTH_AT + 8 :]
    return Part((patched, (start + len(head), end)), measured=True)


def _block_sizes(head: bytes) -> tuple[int, int]:
    """The smallest and the largest block of a stream, in samples."""
    return int.from_bytes(head[8:10], "big"), int.from_bytes(head[10:12], "big")


def _rises(file: BinaryIO, span: Span) -> bool:
    """Whether the frames at some places of a stream are in order, the last ones included."""
    start, end = span
    file.seek(start)
    sizes = _block_sizes(file.read(12))
    tail = end - _TAIL_BYTES
    places = [round(start + share * (tail - _PROBE_BYTES - start)) for share in _PROBED_SHARES]
    spans = [*((place, place + _PROBE_BYTES) for place in places), (tail, end)]
    ends = [found for probed in spans if (found := _ends_of_frames(_frames_in(file, probed, sizes)))]
    return all(max(earlier) < min(later) for earlier, later in pairwise(ends))


def _markers(file: BinaryIO, start: int) -> Iterator[int]:
    """Where files begin from `start` on."""
    file.seek(start)
    content = b""
    while more := file.read(_SEARCH_BYTES):
        first, content = file.tell() - len(more) - len(content), content + more
        yield from (first + found.start() for found in _MARKER.finditer(content))
        content = content[1 - _MARKER_BYTES :]


def _frames_in(file: BinaryIO, span: Span, block_sizes: tuple[int, int]) -> list[_Frame]:
    """Possible frames in a segment of the file."""
    file.seek(span[0])
    content = file.read(span[1] - span[0])
    frames, position = [], content.find(b"\xff")
    while position >= 0:
        frame = _frame(content[position : position + _LONGEST_FRAME_HEADER], *block_sizes)
        if frame is not None:
            frames.append(frame)
        position = content.find(b"\xff", position + 1)
    return frames


def _ends_of_frames(frames: list[_Frame]) -> set[int]:
    """The last sample + 1 of each frame that follows another one, or is the first."""
    ends = {frame.end for frame in frames}
    return {frame.end for frame in frames if frame.first in ends or frame.first == 0}


def _frame(header: bytes, smallest_block: int, largest_block: int) -> _Frame | None:
    """The samples of the frame with this header, if it is one (its checksum says)."""
    if len(header) < 6 or header[1] & 0xFE != 0xF8 or header[3] & 1:
        return None
    block_code, rate_code = header[2] >> 4, header[2] & 15
    number, used = _coded_number(header[4:])
    after = 4 + used
    extra = {6: 1, 7: 2}.get(block_code, 0)
    end = after + extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if not used or block_code == 0 or rate_code == 15 or end >= len(header) or _crc(header[:end]) != header[end]:
        return None
    if extra:
        block = int.from_bytes(header[after : after + extra], "big") + 1
    else:
        block = 192 if block_code == 1 else 576 << block_code - 2 if block_code < 6 else 256 << block_code - 8
    # Frames of one size are counted, others say their first sample.
    first = number if header[1] & 1 or smallest_block != largest_block else number * largest_block
    return _Frame(first, first + block)


def _coded_number(content: bytes) -> tuple[int, int]:
    """A number in UTF-8's way of writing, up to 36 bits, and its bytes (0 where it is none)."""
    lead = content[0]
    if lead < 0x80:
        return lead, 1
    length = 8 - (lead ^ 0xFF).bit_length()
    if not 2 <= length <= 7 or len(content) < length:
        return 0, 0
    number = lead & (0x7F >> length)
    for byte in content[1:length]:
        number = number << 6 | byte & 0x3F
    return number, length


def _crc(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc = _CRC_TABLE[crc ^ byte]
    return crc


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1 & 0xFF) ^ (_CRC_POLYNOMIAL if byte & 0x80 else 0)
    return byte


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]
