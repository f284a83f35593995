"""Sound files with wrong headers, by a seed, and what must hold for each of them.

By hand: PYTHONPATH=tests:. python -m helpers.mutated_sounds FORMAT FIRST COUNT
"""

import faulthandler
import io
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from open_musiclm.audio import (
    TOLERATED_SHORTFALL_SECONDS,
    count_frames,
    read_sound,
    read_window,
    sound_info,
)
from open_musiclm.audio.containers import ogg
from open_musiclm.audio.opening import layout
from open_musiclm.data.check_files import check_file
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundDataset
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError

# suffix: libsndfile's format and subtype, and the rate
FORMATS = {
    "wav": ("WAV", "PCM_16", 8000),
    "rf64": ("RF64", "PCM_16", 8000),
    "flac": ("FLAC", "PCM_16", 8000),
    "ogg": ("OGG", "VORBIS", 8000),
    "opus": ("OGG", "OPUS", 8000),
    "mp3": ("MP3", "MPEG_LAYER_III", 16000),
    "aiff": ("AIFF", "PCM_16", 8000),
    "au": ("AU", "FLOAT", 8000),
    "w64": ("W64", "PCM_24", 8000),
    "caf": ("CAF", "ALAC_16", 8000),
}
SECONDS = 1.5
HEADER_BYTES = 200
HANG_SECONDS = 30  # ten times what the slowest file takes on a busy machine
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
CROPS = [Crop("clap", 0.5, 16000, False), Crop("semantic", 0.25, 8000, True)]


@cache
def _sound(suffix: str, channels: int) -> bytes:
    name, subtype, sample_hz = FORMATS[suffix]
    times = np.arange(round(SECONDS * sample_hz)) / sample_hz
    wave = 0.3 * np.sin(2 * np.pi * 220 * times) + np.random.default_rng(0).normal(0, 0.02, len(times))
    content = io.BytesIO()
    soundfile.write(content, wave[:, None].repeat(channels, 1), sample_hz, subtype=subtype, format=name)
    return content.getvalue()


def mutated(suffix: str, number: int) -> bytes:
    """File `number` of a format: a sound of 1.5 s with one to four changes."""
    rng = np.random.default_rng([number, *suffix.encode()])
    content = bytearray(_sound(suffix, int(rng.integers(1, 3))))
    for _ in range(rng.integers(1, 5)):
        _change(content, rng)
    if suffix in ("ogg", "opus") and rng.integers(2):
        _correct_checksums(content)
    return bytes(content)


def _change(content: bytearray, rng: np.random.Generator) -> None:
    end = min(len(content), HEADER_BYTES)
    # mostly in the header, else anywhere: the last page of an Ogg file is a header, too
    place = int(rng.integers(max(end, 1))) if rng.integers(4) else int(rng.integers(max(len(content), 1)))
    kind = rng.integers(9)
    if kind <= 1:
        content[place : place + 1] = rng.bytes(1)
    elif kind <= 3:
        width = int(rng.choice([1, 2, 4, 8]))
        value = int(rng.choice(EXTREMES)) % (1 << 8 * width)
        content[place : place + width] = value.to_bytes(width, "little" if rng.integers(2) else "big")
    elif kind == 4:
        content[place : place + 1] = bytes([content[place] ^ 1 << int(rng.integers(8))]) if content else b""
    elif kind == 5:
        del content[place : place + int(rng.integers(1, 64))]
    elif kind == 6:
        content[place:place] = rng.bytes(int(rng.integers(1, 64)))
    elif kind == 7:
        del content[int(rng.integers(max(len(content), 1))) :]
    else:
        content += bytes(content) if rng.integers(2) else rng.bytes(int(rng.integers(1, 5000)))


def _correct_checksums(content: bytearray) -> None:
    place = content.find(b"OggS")
    while place >= 0 and place + 27 <= len(content):
        segments = content[place + 27 : place + 27 + content[place + 26]]
        end = place + 27 + len(segments) + sum(segments)
        content[place + 22 : place + 26] = bytes(4)
        content[place + 22 : place + 26] = ogg.checksum(content[place:end]).to_bytes(4, "little")
        place = content.find(b"OggS", place + 4)


def outcome(path: Path) -> str:
    """Says "used", or the line that names the file. Raises AssertionError where the doors to sound do not agree."""
    checked = check_file(path)
    problems = [problem for door in (_read, _crop) if (problem := _problem(door, path)) is not None]
    assert not problems or checked.problem is not None, problems
    if checked.problem is not None:
        problems.append(checked.problem)
    for problem in problems:
        assert str(path) in problem
        assert "\n" not in problem
    return checked.problem or "used"


def _problem(door: Callable[[Path], None], path: Path) -> str | None:
    try:
        door(path)
    except UserError as error:
        return str(error)
    return None


def _read(path: Path) -> None:
    info, sound = sound_info(path), read_sound(path)
    assert info.frames == sound.wave.shape[0] == StatisticsCache().info(path).frames
    tolerated = len(layout(path).parts) * TOLERATED_SHORTFALL_SECONDS * info.sample_hz
    assert 0 <= info.frames - count_frames(path) <= tolerated
    assert bool(sound.wave.isfinite().all())
    assert bool(read_window(path, info.frames // 3, 100).isfinite().all())


def _crop(path: Path) -> None:
    example = SoundDataset([path], CROPS, seed=0)[0]
    assert not example.failures
    assert {name: len(wave) for name, wave in example.waves.items()} == {"clap": 8000, "semantic": 2000}


def _most_memory() -> int:
    """The largest part of memory that this process had so far, in KiB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux: this counts the parent, too
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(suffix: str, first: int, count: int) -> None:
    """Tries files and prints how many were used; the numbers of those that fail before."""
    base = _most_memory()
    used = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            path = Path(folder) / f"{number}.{suffix}"
            path.write_bytes(mutated(suffix, number))
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            try:
                used += outcome(path) == "used"
            except Exception:
                print(f"{suffix} {number}:", flush=True)
                traceback.print_exc()
                failed += 1
            faulthandler.cancel_dump_traceback_later()
            path.unlink()
    grown = (_most_memory() - base) >> 10
    print(f"{suffix}: {used} of {count} used, the others named; {grown} MiB more memory")
    sys.exit(failed > 0 or grown > 1024)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
