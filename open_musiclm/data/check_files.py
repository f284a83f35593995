"""Which sound files of a folder training can use: formats, rates, lengths, and what is wrong with the others."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from open_musiclm.audio import SoundError, find_sounds, find_unreadable_sounds, sound_info, wave_statistics
from open_musiclm.data.failures import as_sound_error
from open_musiclm.progress_bar import with_progress

_QUANTILES = (0, 10, 50, 90, 100)
_SECONDS_PER_HOUR = 3600
_UNREADABLE = "a kind of sound that cannot be read here; convert it to flac, wav, ogg or mp3"


@dataclass(frozen=True)
class CheckedFile:
    """One sound file: its header (None without one), and its problem if it cannot be used."""

    path: Path
    format: str | None = None
    sample_hz: int | None = None
    channels: int | None = None
    seconds: float | None = None
    problem: str | None = None


def check_file(path: Path) -> CheckedFile:
    """Decodes a whole file. Its problem is what would make training skip it."""
    try:
        with as_sound_error(path):
            info = sound_info(path)
    except SoundError as error:
        return CheckedFile(path, problem=str(error))
    problem = None
    try:
        with as_sound_error(path):
            wave_statistics(path)
    except SoundError as error:
        problem = str(error)
    return CheckedFile(path, info.format, info.sample_hz, info.channels, info.seconds, problem)


def check_folder(folder: Path) -> list[CheckedFile]:
    """Every sound file below `folder`, in order; also those of kinds that cannot be read.

    Raises UserError if there is none that can be.
    """
    paths = find_sounds(folder)
    unreadable = [CheckedFile(path, problem=f"{path}: {_UNREADABLE}") for path in find_unreadable_sounds(folder)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = list(with_progress(pool.map(check_file, paths), len(paths), "decoding", "files"))
    return sorted([*checked, *unreadable], key=lambda file: file.path)


def usable(files: Sequence[CheckedFile]) -> list[CheckedFile]:
    """The files without a problem."""
    return [file for file in files if file.problem is None]


def describe(files: Sequence[CheckedFile]) -> Iterator[str]:
    """Lines about the files: hours, formats, rates, channels, lengths, and each one that cannot be used."""
    good = usable(files)
    lengths = seconds_of(good)
    yield f"files     {len(files)}, of which {len(good)} can be used: {lengths.sum() / _SECONDS_PER_HOUR:.2f} hours"
    yield f"formats   {_counted([file.format for file in good])}"
    yield f"rates     {_counted([f'{file.sample_hz} Hz' for file in good])}"
    yield f"channels  {_counted([str(file.channels) for file in good])}"
    if good:
        shortest, tenth, median, ninetieth, longest = np.percentile(lengths, _QUANTILES)
        yield (
            f"lengths   shortest {shortest:.1f} s, 10 % below {tenth:.1f} s, half below {median:.1f} s, "
            f"90 % below {ninetieth:.1f} s, longest {longest:.1f} s"
        )
    problems = [file.problem for file in files if file.problem is not None]
    yield f"unusable  {len(problems)}"
    yield from (f"  {problem}" for problem in problems)


def seconds_of(files: Sequence[CheckedFile]) -> Float[np.ndarray, "files"]:
    """The lengths of files in seconds; 0 if a header has none."""
    return np.array([file.seconds or 0.0 for file in files])


def _counted(values: Sequence[str | None]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in Counter(values).most_common()) or "none"
