"""The headers of a sound file."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

from open_musiclm.audio.c_stderr import c_stderr_hidden
from open_musiclm.audio.layout import Part
from open_musiclm.audio.opening import layout, opened
from open_musiclm.errors import SoundError

SHORTEST_SECONDS = 0.01
# No encoder packs more into a byte, but for silence.
_MOST_FRAMES_PER_BYTE = 10_000
_RATES_SHOWN = 8


@dataclass(frozen=True)
class SoundInfo:
    """A sound file's length (samples per channel), rate, channels, format and kind of samples, as libsndfile names it.

    `estimated`: the length is an estimate, and decoding must replace it: for an mp3 without a length tag, or a file
    whose header does not match its content.
    """

    frames: int
    sample_hz: int
    channels: int
    format: str
    estimated: bool = False
    subtype: str = "PCM_16"

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.sample_hz


def header_info(path: Path) -> SoundInfo:
    """What the headers say. Raises SoundError if the file is missing, empty or not sound."""
    infos = [part_info(path, part) for part in layout(path).parts]
    if len({info.sample_hz for info in infos}) > 1:
        rates = ", ".join(str(info.sample_hz) for info in infos[:_RATES_SHOWN])
        raise SoundError(f"{path}: {len(infos)} joined files of different sample rates ({rates} Hz); split it")
    return replace(
        infos[0],
        frames=sum(info.frames for info in infos),
        channels=max(info.channels for info in infos),
        estimated=any(info.estimated for info in infos),
        subtype=infos[0].subtype if len({info.subtype for info in infos}) == 1 else "FLOAT",
    )


def part_info(path: Path, part: Part) -> SoundInfo:
    """What the header of one part says. Raises SoundError."""
    with opened(path, part) as file:
        is_possible = file.frames <= _MOST_FRAMES_PER_BYTE * path.stat().st_size
        estimated = part.measured or not is_possible
        return SoundInfo(file.frames, file.samplerate, file.channels, file.format, estimated, file.subtype)


def check_length(path: Path, info: SoundInfo) -> None:
    """Raises SoundError if a file is too short for anything."""
    if info.seconds < SHORTEST_SECONDS:
        raise SoundError(f"{path}: too short: {info.frames} samples at {info.sample_hz} Hz")


def artist_of(path: Path) -> str | None:
    """The artist that a file's tags name; None if they name none, or cannot be read."""
    unreadable = (soundfile.SoundFileError, OSError, UnicodeError, ValueError, TypeError)
    with suppress(*unreadable), c_stderr_hidden(), soundfile.SoundFile(path) as file:
        return " ".join(file.copy_metadata().get("artist", "").split()) or None
    return None
