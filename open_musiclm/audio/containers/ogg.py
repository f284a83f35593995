"""Ogg: pages of packets (RFC 3533). A file may be a chain of streams, each with a length in its last page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from open_musiclm.audio.layout import MOST_PARTS, PLAIN, Layout, Part, Span, TooManyParts

_HEADER_BYTES = 27
_FIRST_PAGE = 0x02
_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex")
_MOST_FRAMES_PER_PACKET = 1 << 16  # FLAC's; Vorbis has at most 4,096, Opus 5,760
_SEARCH_BYTES = 1 << 16
_CRC_POLYNOMIAL = 0x04C11DB7


class _Page(NamedTuple):
    first: int
    end: int
    begins_stream: bool
    granule: int  # samples up to the end of the page; -1 where no packet ends in it
    serial: int
    packets: int
    body: int  # the first byte of the body


@dataclass
class _Link:
    """One stream of a chain: its bytes, and the last two pages with a length of its first known codec."""

    first: int
    end: int
    in_beginning: bool = True  # more pages that begin a stream belong to it
    serial: int | None = None
    before: _Page | None = None
    last: _Page | None = None

    def add(self, file: BinaryIO, page: _Page) -> None:
        """Adds the next page."""
        self.end, self.in_beginning = page.end, page.begins_stream
        if self.serial is None and page.begins_stream and _codec(file, page):
            self.serial = page.serial
        elif page.serial == self.serial and page.granule >= 0 and not page.begins_stream:
            self.before, self.last = self.last, page


def ogg_layout(file: BinaryIO, size: int) -> Layout:
    """One part for each stream of a chain; one whose last page has an impossible length is measured.

    Raises TooManyParts.
    """
    links: list[_Link] = []
    for page in _pages(file, size):
        if not links or (page.begins_stream and not links[-1].in_beginning):
            links.append(_Link(page.first, page.end))
            if len(links) > MOST_PARTS:
                raise TooManyParts
        links[-1].add(file, page)
    parts = tuple(part for link in links if (part := _part(file, link)) is not None)
    return PLAIN if len(parts) < 2 and not any(part.measured for part in parts) else Layout(parts)


def _pages(file: BinaryIO, size: int) -> Iterator[_Page]:
    position = 0
    while position + _HEADER_BYTES <= size:
        file.seek(position)
        header = file.read(_HEADER_BYTES)
        if header[:5] != b"OggS\0":
            position = _next_page(file, position + 1)
            continue
        segments = file.read(header[26])
        body = position + _HEADER_BYTES + len(segments)
        end = body + sum(segments)
        if end > size:
            return
        yield _Page(
            position,
            end,
            bool(header[5] & _FIRST_PAGE),
            int.from_bytes(header[6:14], "little", signed=True),
            int.from_bytes(header[14:18], "little"),
            sum(segment < 255 for segment in segments),
            body,
        )
        position = end


def _next_page(file: BinaryIO, start: int) -> int:
    """Where the next page begins, or the end of the file."""
    while True:
        file.seek(start)
        content = file.read(_SEARCH_BYTES)
        found = content.find(b"OggS")
        if found >= 0:
            return start + found
        if len(content) < _SEARCH_BYTES:
            return start + len(content)
        start += len(content) - 3


def _part(file: BinaryIO, link: _Link) -> Part | None:
    """The part of one stream; None if it holds no sound."""
    last, before, span = link.last, link.before, (link.first, link.end)
    if last is None:
        return None
    if before is None:
        return Part((span,))
    most = before.granule + last.packets * _MOST_FRAMES_PER_PACKET
    # The headers' pages say 0; what follows them may begin anywhere.
    if before.granule == 0 or before.granule <= last.granule <= most:
        return Part((span,))
    return Part(_with_granule(file, span, last, most), measured=True)


def _codec(file: BinaryIO, page: _Page) -> bool:
    file.seek(page.body)
    return file.read(8).startswith(_CODECS)


def _with_granule(file: BinaryIO, span: Span, page: _Page, granule: int) -> tuple[Span | bytes, ...]:
    """The stream with another length in its last page."""
    file.seek(page.first)
    content = bytearray(file.read(page.end - page.first))
    content[6:14] = granule.to_bytes(8, "little")
    content[22:26] = bytes(4)
    content[22:26] = checksum(content).to_bytes(4, "little")
    return (span[0], page.first), bytes(content), (page.end, span[1])


def checksum(content: bytes | bytearray) -> int:
    """The CRC of a page whose own field of it is 0."""
    crc = 0
    for byte in content:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_of_byte(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 & 0xFFFFFFFF) ^ (_CRC_POLYNOMIAL if crc >> 31 else 0)
    return crc


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]
