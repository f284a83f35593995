"""mp3: a chain of frames. The length that a tag in the first frame states is compared with the frames that follow."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from open_musiclm.audio.containers.id3 import after_id3
from open_musiclm.audio.layout import MOST_PARTS, PLAIN, Layout, Part, TooManyParts, is_truncated

_HEAD_BYTES = 64  # of a frame: its header, side information and the beginning of a length tag
_TOLERATED_SECONDS = 0.1
_TOLERATED_BYTES = 0.02  # of a tag's number of bytes
# libmpg123 gives up where it finds no frame for 1,024 bytes.
_LONGEST_GAP = 512
_FEWEST_FRAMES = 3  # fewer in a row are no sound but bytes that look like it
_SEARCH_BYTES = 1 << 16
_LONGEST_SEARCH = 1 << 20  # for the first frame
_MOST_FALSE_STARTS = 100_000  # bytes that look like frames and are none: seconds of work, no sound has as many
# The three bytes that tell a frame's header from other bytes (see _frame), or the beginning of an ID3 tag.
_SECOND_BYTES = bytes(byte for byte in range(0xE0, 0x100) if byte >> 3 & 3 != 1 and byte >> 1 & 3)
_THIRD_BYTES = bytes(byte for byte in range(0x100) if byte >> 4 not in (0, 15) and byte >> 2 & 3 != 3)
_SYNC = re.compile(b"\xff[" + re.escape(_SECOND_BYTES) + b"][" + re.escape(_THIRD_BYTES) + b"]|ID3")
_RATES = (44100, 48000, 32000)
_KBITS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_TAG_KBITS_INDEX = 9  # a frame of this bit rate holds a length tag at every sample rate


class _Frame(NamedTuple):
    """What a frame's header says; frames with the same `kind` make one stream."""

    size: int
    samples: int
    tag_at: int
    kind: tuple[int, int, int, bool]  # version, layer, rate, mono


class _LengthTag(NamedTuple):
    frames: int | None
    stream_bytes: int | None


@dataclass
class _Run:
    """Frames of one kind that follow each other. `first` is the first byte, that of the tag's frame if it has one."""

    first: int
    header: bytes
    frame: _Frame
    tag: _LengthTag | None = None
    after_tag: int = 0
    frames: int = 0
    end: int = 0


def mpeg_layout(file: BinaryIO, size: int) -> Layout:
    """One part for each of several files in one; a part without a length tag, or with a wrong one, is measured.

    Raises TooManyParts.
    """
    start = after_id3(file)
    runs = [run for run in _runs(file, start, size) if run.frames >= _FEWEST_FRAMES]
    if not runs:
        return Layout((Part(measured=True),))
    parts = tuple(_part(run, is_only=len(runs) == 1) for run in runs)
    return PLAIN if len(parts) == 1 and runs[0].first == start and not parts[0].measured else Layout(parts)


def _part(run: _Run, is_only: bool) -> Part:
    promised, found = run.tag.frames if run.tag else None, run.frames
    if promised is not None and run.tag is not None:
        difference = abs(promised - found) * run.frame.samples / run.frame.kind[2]
        stated = run.tag.stream_bytes
        is_complete = stated and abs(stated - (run.end - run.first)) <= _TOLERATED_BYTES * stated
        if difference <= _TOLERATED_SECONDS or (is_only and not is_complete and is_truncated(promised, found)):
            return Part(((run.first, run.end),))
    if run.tag is None and run.frames * (run.frame.size - 1) <= run.end - run.first:
        return Part(((run.first, run.end),), measured=True)  # which libmpg123 guesses right
    first = run.after_tag if run.tag else run.first
    return Part((_tag_frame(run), (first, run.end)), measured=True)


def _tag_frame(run: _Run) -> bytes:
    """A first frame that states the number of frames, so that libmpg123 does not guess it. Only layer 3 has such."""
    if run.frame.kind[1] != 3:
        return b""
    header = bytes((0xFF, run.header[1] | 1, _TAG_KBITS_INDEX << 4 | run.header[2] & 0x0C, run.header[3]))
    frame = _frame(header)
    assert frame is not None
    content = header + bytes(frame.tag_at - 4) + b"Xing" + (1).to_bytes(4, "big") + (run.frames + 1).to_bytes(4, "big")
    return content.ljust(frame.size, b"\0")


def _runs(file: BinaryIO, start: int, size: int) -> list[_Run]:
    """All runs of frames, in order. Raises TooManyParts."""
    runs: list[_Run] = []
    false_starts = 0
    position, gap_from = start, start
    while position + 4 <= size:
        file.seek(position)
        head = file.read(_HEAD_BYTES)
        frame = _frame(head[:4])
        run = runs[-1] if runs else None
        follows = run is not None and frame is not None and frame.kind == run.frame.kind and gap_from == position
        if frame is None or not (follows or _is_followed(file, position, frame, size)):
            if run is None and position - start > _LONGEST_SEARCH:
                break
            false_starts += 1
            if false_starts > _MOST_FALSE_STARTS:
                raise TooManyParts(f"more than {_MOST_FALSE_STARTS:,} places that look like frames and are none")
            skipped = after_id3(file, position)
            position = skipped if skipped > position else _next_sync(file, position + 1)
            continue
        tag = _length_tag(head, frame)
        if run is None or tag or frame.kind != run.frame.kind or position - gap_from > _LONGEST_GAP:
            run = _Run(position, head[:4], frame, tag, position + frame.size)
            runs.append(run)
            if len(runs) > MOST_PARTS:
                raise TooManyParts
        end = min(position + frame.size, size)
        run.frames += tag is None
        run.end = position = gap_from = end
    return runs


def _is_followed(file: BinaryIO, position: int, frame: _Frame, size: int) -> bool:
    """Whether another frame of the same kind, or the end of the file, follows a frame."""
    after = position + frame.size
    if after >= size:
        return after == size
    file.seek(after)
    following = _frame(file.read(4))
    return following is not None and following.kind == frame.kind


def _next_sync(file: BinaryIO, start: int) -> int:
    """The next byte that may begin a frame or an ID3 tag, or the end of the file."""
    while True:
        file.seek(start)
        content = file.read(_SEARCH_BYTES)
        found = _SYNC.search(content)
        if found is not None:
            return start + found.start()
        if len(content) < _SEARCH_BYTES:
            return start + len(content)
        start += len(content) - 2


def _length_tag(head: bytes, frame: _Frame) -> _LengthTag | None:
    """The tag in a frame, without numbers where libmpg123 does not read them."""
    if frame.kind[1] != 3:
        return None
    at = frame.tag_at
    if head[at : at + 4] not in (b"Xing", b"Info"):
        return _LengthTag(None, None) if head[36:40] == b"VBRI" else None
    flags = int.from_bytes(head[at + 4 : at + 8], "big")
    numbers = [int.from_bytes(head[place : place + 4], "big") for place in (at + 8, at + 12)]
    has_frames, has_bytes = bool(flags & 1), bool(flags & 2)
    return _LengthTag(numbers[0] if has_frames else None, numbers[has_frames] if has_bytes else None)


@lru_cache(1 << 12)
def _frame(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version_code, layer, kbits_index, rate_index = (
        header[1] >> 3 & 3,
        4 - (header[1] >> 1 & 3),
        header[2] >> 4,
        header[2] >> 2 & 3,
    )
    if version_code == 1 or layer == 4 or kbits_index in (0, 15) or rate_index == 3:
        return None
    version = 1 if version_code == 3 else 2
    rate = _RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version_code]
    bits = 1000 * _KBITS[version, layer if version == 1 else min(layer, 2)][kbits_index]
    padding, mono = header[2] >> 1 & 1, header[3] >> 6 == 3
    if layer == 1:
        size, samples = (12 * bits // rate + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and version == 2 else 1152
        size = samples // 8 * bits // rate + padding
    side = (17 if mono else 32) if version == 1 else (9 if mono else 17)
    return _Frame(size, samples, 4 + side, (version_code, layer, rate, mono))
