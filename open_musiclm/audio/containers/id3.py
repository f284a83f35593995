"""ID3v2 tags, which stand before the sound of an mp3 and of some FLAC files."""

from typing import BinaryIO

ID3_HEADER_BYTES = 10
_HAS_FOOTER = 0x10


def after_id3(file: BinaryIO, start: int = 0) -> int:
    """The first byte at or after `start` that belongs to no ID3v2 tag."""
    while size := id3_size(_at(file, start)):
        start += size
    return start


def id3_size(header: bytes) -> int:
    """The bytes of the ID3v2 tag that begins with `header`, 0 if none does."""
    if len(header) < ID3_HEADER_BYTES or header[:3] != b"ID3" or max(header[6:10]) > 0x7F:
        return 0
    size = sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
    return ID3_HEADER_BYTES + size + (ID3_HEADER_BYTES if header[5] & _HAS_FOOTER else 0)


def _at(file: BinaryIO, position: int) -> bytes:
    file.seek(position)
    return file.read(ID3_HEADER_BYTES)
