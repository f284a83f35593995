"""Where the frames of an mp3 begin, so that a part of a long file is decoded without walking through all before it.

An mp3 is a chain of frames without a table of contents. A frame may keep part of its sound in the bytes of the frames
before it (the bit reservoir: main_data_begin says how far back), and its first samples overlap with the end of the one
before. An excerpt therefore starts a few frames early; what its first frames would need from still earlier ones is
blanked, so that the decoder neither misses anything nor complains.

Bytes only: audio.py decodes them.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

_ANCHOR_SPACING = 64
_RESERVOIR_FRAMES = 96  # enough for a full reservoir at any bitrate above the very lowest
_OVERLAP_GRANULES = 4  # overlap-add and the synthesis filter reach back two granules; as many again to be sure
_BITRATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_HALF = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44100, 48000, 32000)
_TAIL_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_DECODER_DELAY = 529
_STORED = struct.Struct("<4s4q")
_TAG_BITRATE = 9  # of the frame that tells the decoder how long an excerpt is: 240 bytes or more at every rate


@dataclass(frozen=True)
class FrameFormat:
    """What all frames of a file have in common, from the header of one: MPEG 1, 2 or 2.5, layer III."""

    header: bytes

    @property
    def mpeg1(self) -> bool:
        return self.header[1] >> 3 & 3 == 3

    @property
    def mono(self) -> bool:
        return self.header[3] >> 6 == 3

    @property
    def granules(self) -> int:
        return 2 if self.mpeg1 else 1

    @property
    def samples(self) -> int:
        """Samples in a frame."""
        return 576 * self.granules

    @property
    def side_bytes(self) -> int:
        """Bytes of side information, which begins with main_data_begin."""
        return (17 if self.mono else 32) if self.mpeg1 else (9 if self.mono else 17)

    @property
    def reservoir_bits(self) -> int:
        """Bits of main_data_begin."""
        return 9 if self.mpeg1 else 8

    @cached_property
    def lengths(self) -> dict[bytes, int]:
        """Bytes of a frame by the first three bytes of its header."""
        version, rate = self.header[1] >> 3 & 3, self.header[2] >> 2 & 3
        sample_hz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
        lengths = {}
        for number, kilobits in enumerate(_BITRATES if self.mpeg1 else _BITRATES_HALF, 1):
            for flags in range(8):
                unprotected, padding, private = flags & 1, flags >> 1 & 1, flags >> 2
                second = self.header[1] & 0xFE | unprotected
                third = number << 4 | rate << 2 | padding << 1 | private
                lengths[bytes((0xFF, second, third))] = 72 * self.granules * kilobits * 1000 // sample_hz + padding
        return lengths


@dataclass(frozen=True)
class FrameIndex:
    """The frames of one mp3: how many, and where every 64th begins.

    `skipped` samples at the beginning are the encoder's delay, not sound; `samples` is the length without them.
    """

    format: FrameFormat
    frames: int
    skipped: int
    samples: int
    anchors: np.ndarray  # int64 [ceil(frames / 64)], bytes from the beginning of the file
    end: int

    def to_bytes(self) -> bytes:
        """The index as it is stored: 8 bytes for every 64 frames."""
        fields = _STORED.pack(self.format.header, self.frames, self.skipped, self.samples, self.end)
        return fields + self.anchors.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, stored: bytes) -> "FrameIndex | None":
        """The index that was stored; None where it is broken."""
        if len(stored) < _STORED.size or (len(stored) - _STORED.size) % 8:
            return None
        header, frames, skipped, samples, end = _STORED.unpack_from(stored)
        frame_format = _format(header)
        anchors = np.frombuffer(stored, "<i8", offset=_STORED.size).astype(np.int64)
        whole = frames > 0 and len(anchors) == -(-frames // _ANCHOR_SPACING) and bool((np.diff(anchors) > 0).all())
        if frame_format is None or not whole or anchors[0] < 0 or end <= anchors[-1]:
            return None
        return cls(frame_format, frames, skipped, samples, anchors, end)

    def excerpt(self, path: Path, start: int, count: int) -> tuple[bytes, int] | None:
        """A small mp3 that holds samples [start, start + count), and how many samples it has before them.

        None where the file is not as it was indexed. Raises OSError.
        """
        begin, end = start + self.skipped, start + self.skipped + count
        first = max(begin // self.format.samples - _OVERLAP_GRANULES // self.format.granules, 0)
        last = min(-(-end // self.format.samples), self.frames)
        anchor = max(first - _RESERVOIR_FRAMES, 0) // _ANCHOR_SPACING
        beyond = -(-last // _ANCHOR_SPACING)
        with path.open("rb") as file:
            file.seek(int(self.anchors[anchor]))
            stop = int(self.anchors[beyond]) if beyond < len(self.anchors) else self.end
            data = bytearray(file.read(stop - int(self.anchors[anchor])))
        earliest = anchor * _ANCHOR_SPACING
        offsets, _ = _chain(data, 0, self.format, last - earliest)
        if len(offsets) != last - earliest + 1:
            return None
        blanked = _blanked(data, offsets, first - earliest, self.format)
        if blanked is None and earliest > 0:
            return None
        kept = earliest + (blanked or 0)
        before = self.format.samples - _DECODER_DELAY + begin - kept * self.format.samples
        return bytes(_opening(self.format, last - kept) + data[offsets[blanked or 0] : offsets[-1]]), before


def index_frames(data: bytes, promised: int) -> FrameIndex | None:
    """Finds the frames of an mp3, given as its bytes, of which the decoder promises so many samples.

    None where it is not one plain chain of frames of one format, from the tags at its front to those at its end, or
    where a tag names a number of samples that does not fit the number of frames.
    """
    begin = _after_front_tags(data)
    frame_format = _format(data[begin : begin + 4])
    if frame_format is None:
        return None
    offsets, chained = _chain(data, begin, frame_format, None)
    modes = np.frombuffer(data, np.uint8)[np.array(offsets[:-1], np.int64) + 3] >> 6
    if not chained or len(offsets) < 3 or ((modes == 3) != frame_format.mono).any():
        return None
    head = data[begin : offsets[1]]
    tagged = head[4 + frame_format.side_bytes :][:4] in (b"Xing", b"Info") or head[36:40] == b"VBRI"
    offsets = offsets[1:] if tagged else offsets
    frames = len(offsets) - 1
    samples, skipped = frames * frame_format.samples, 0
    if tagged and samples != promised:
        delay, padding = _encoder_delay(head[4 + frame_format.side_bytes :])
        skipped = delay + _DECODER_DELAY
        samples -= skipped + max(padding - _DECODER_DELAY, 0)
        if samples != promised:
            return None
    anchors = np.array(offsets[:-1:_ANCHOR_SPACING], np.int64)
    return FrameIndex(frame_format, frames, skipped, samples, anchors, offsets[-1])


def _after_front_tags(data: bytes) -> int:
    begin = 0
    while data[begin : begin + 3] == b"ID3" and len(data) >= begin + 10:
        size = sum((data[begin + 6 + place] & 0x7F) << 7 * (3 - place) for place in range(4))
        begin += 10 + size + (10 if data[begin + 5] & 0x10 else 0)
    return begin


def _format(header: bytes) -> FrameFormat | None:
    """The format of a layer III frame that states its bitrate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2 or header[1] >> 3 & 3 == 1:
        return None
    if header[2] >> 2 & 3 == 3:
        return None
    frame_format = FrameFormat(bytes(header))
    return frame_format if header[:3] in frame_format.lengths else None


def _chain(data: bytes | bytearray, begin: int, frame_format: FrameFormat, most: int | None) -> tuple[list[int], bool]:
    """Offsets of the whole frames from `begin` on, then that of the end of the last one; and whether only a tag, or
    a piece of one more frame, comes after them."""
    lengths, size = frame_format.lengths, len(data)
    offsets, offset = [begin], begin
    while most is None or len(offsets) <= most:
        length = lengths.get(bytes(data[offset : offset + 3]))
        if length is None:
            tail = bytes(data[offset : offset + 11])
            return offsets, not tail.strip(b"\0") or tail.startswith(_TAIL_TAGS)
        offset += length
        if offset > size:
            return offsets, True
        offsets.append(offset)
    return offsets, True


def _encoder_delay(tag: bytes) -> tuple[int, int]:
    """Samples that the encoder put before and after the sound, by a Xing or Info tag; zeros where it does not say."""
    flags = int.from_bytes(tag[4:8], "big")
    start = 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    field = tag[start + 21 : start + 24]
    if len(field) < 3:
        return 0, 0
    return field[0] << 4 | field[1] >> 4, (field[1] & 15) << 8 | field[2]


def _blanked(data: bytearray, offsets: list[int], first: int, frame_format: FrameFormat) -> int | None:
    """Silences frames before `first` that serve only as its bit reservoir, and returns the earliest one needed.

    They keep their bytes of main data but not their side information, apart from a main_data_begin that reaches no
    further back than the excerpt does. None, and all frames kept, where there are too few for a full reservoir.
    """
    earliest, available, wanted = first, 0, (1 << frame_format.reservoir_bits) - 1
    while earliest > 0 and available < wanted:
        earliest -= 1
        available += _main_bytes(data, offsets, earliest, frame_format)
    enough = available >= wanted
    available = 0
    for number in range(earliest, first):
        _blank(data, offsets[number], available, frame_format)
        available += _main_bytes(data, offsets, number, frame_format)
    return earliest if enough else None


def _main_bytes(data: bytearray, offsets: list[int], number: int, frame_format: FrameFormat) -> int:
    checksum = 0 if data[offsets[number] + 1] & 1 else 2
    return offsets[number + 1] - offsets[number] - 4 - checksum - frame_format.side_bytes


def _blank(data: bytearray, offset: int, available: int, frame_format: FrameFormat) -> None:
    """Makes a frame silent. Its checksum goes: side information then begins two bytes earlier, main data still ends
    where it ended."""
    side = offset + (4 if data[offset + 1] & 1 else 6)
    shift = 16 - frame_format.reservoir_bits
    reach = min(int.from_bytes(data[side : side + 2], "big") >> shift, available)
    data[offset + 1] |= 1
    data[offset + 4 : offset + 4 + frame_format.side_bytes] = bytes(frame_format.side_bytes)
    data[offset + 4 : offset + 6] = (reach << shift).to_bytes(2, "big")


def _opening(frame_format: FrameFormat, frames: int) -> bytes:
    """What an excerpt of so many frames begins with: a tag that tells the decoder their number, then a silent frame,
    the first 529 samples of which the decoder leaves out, as it does after any such tag."""
    header = bytearray(frame_format.header)
    header[1] |= 1
    header[2] = _TAG_BITRATE << 4 | header[2] & 0x0C
    length = frame_format.lengths[bytes(header[:3])]
    tag = header + bytes(frame_format.side_bytes) + b"Xing" + (1).to_bytes(4, "big") + (frames + 1).to_bytes(4, "big")
    return bytes(tag.ljust(length, b"\0") + header.ljust(length, b"\0"))
