"""FLAC (RFC 9639): the length in STREAMINFO is compared with the sample numbers of the last frames."""

from typing import BinaryIO, NamedTuple

from open_musiclm.audio.containers.id3 import after_id3
from open_musiclm.audio.layout import PLAIN, Layout, Part, is_truncated

_STREAMINFO_BYTES = 34
_LENGTH_AT = 8 + 10  # from "fLaC" on: 64 bits, the last 36 of which are the length
_LENGTH_BITS = 36
_TAIL_BYTES = 1 << 18
_LONGEST_FRAME_HEADER = 16
_CRC_POLYNOMIAL = 0x07


class _Frame(NamedTuple):
    first: int  # sample
    end: int


def flac_layout(file: BinaryIO, size: int) -> Layout:
    """The whole file; one whose header says another length than its last frames is measured."""
    start = after_id3(file)
    file.seek(start)
    head = file.read(8 + _STREAMINFO_BYTES)
    if len(head) < 8 + _STREAMINFO_BYTES or head[4] & 0x7F:
        return PLAIN
    bits = int.from_bytes(head[_LENGTH_AT : _LENGTH_AT + 8], "big")
    promised = bits & ((1 << _LENGTH_BITS) - 1)
    ends = _ends_of_frames(file, size, start, int.from_bytes(head[8:10], "big"), int.from_bytes(head[10:12], "big"))
    found = max(ends, default=0)
    if promised and (promised in ends or not found or is_truncated(promised, found)):
        return PLAIN
    longest = min(2 * found or (1 << _LENGTH_BITS) - 1, (1 << _LENGTH_BITS) - 1)
    bits = bits >> _LENGTH_BITS << _LENGTH_BITS | longest
    patched = head[:_LENGTH_AT] + bits.to_bytes(8, "big") + head[_LENGTH_AT + 8 :]
    return Layout((Part((patched, (start + len(head), size)), measured=True),))


def _ends_of_frames(file: BinaryIO, size: int, start: int, smallest_block: int, largest_block: int) -> set[int]:
    """The last sample + 1 of each frame that begins near the end of the file and follows another one."""
    first = max(start, size - _TAIL_BYTES)
    file.seek(first)
    tail = file.read(_TAIL_BYTES)
    frames, position = [], tail.find(b"\xff")
    while position >= 0:
        frame = _frame(tail[position : position + _LONGEST_FRAME_HEADER], smallest_block, largest_block)
        if frame is not None:
            frames.append(frame)
        position = tail.find(b"\xff", position + 1)
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
