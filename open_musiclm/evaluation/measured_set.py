"""All clips of a set, measured, in bounded memory however many clips there are."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from open_musiclm.audio import FileSound, read_sound
from open_musiclm.data.failures import as_sound_error
from open_musiclm.errors import UserError
from open_musiclm.evaluation.cache import MeasureCache, all_finite, content_key
from open_musiclm.evaluation.clips import EvaluationClip
from open_musiclm.evaluation.measure import Measure, Measured
from open_musiclm.evaluation.vectors import ClipVectors, VectorFile
from open_musiclm.progress_bar import progress_bar
from open_musiclm.terminal import print_stderr


@dataclass(frozen=True)
class MeasuredSet:
    """The clips of a folder that could be read, what was measured of them by names of measure and vectors, and why
    others were left out."""

    folder: Path
    clips: Sequence[EvaluationClip]
    vectors: dict[tuple[str, str], ClipVectors]
    left_out: Sequence[str]

    def get(self, measure: str, name: str) -> ClipVectors | None:
        """Some vectors of a measure; None if that was not measured."""
        return self.vectors.get((measure, name))


def measure_set(
    folder: Path,
    clips: Sequence[EvaluationClip],
    measures: dict[str, Measure],
    cache: MeasureCache,
    seconds: float | None = None,
) -> MeasuredSet:
    """Measures all clips, of each the first `seconds`; what is in the cache is taken from there.

    Files that cannot be read are skipped with a warning. Raises UserError if there is none left, or if a
    measurement is not finite.
    """
    columns: defaultdict[tuple[str, str], VectorFile] = defaultdict(VectorFile)
    kept: list[EvaluationClip] = []
    left_out: list[str] = []
    batch = max((measure.batch for measure in measures.values()), default=1)
    with progress_bar(len(clips), folder.name, "clips") as bar:
        for first in range(0, len(clips), batch):
            some = clips[first : first + batch]
            for clip, measured in _measured(some, measures, cache, seconds, left_out):
                kept.append(clip)
                for name, vectors in measured.items():
                    columns[name].append(vectors)
            bar.update(len(some))
    if not kept:
        raise UserError(f"{folder}: none of its {len(clips)} sounds can be read; the first: {left_out[0]}")
    return MeasuredSet(folder, kept, {name: column.read() for name, column in columns.items()}, left_out)


def _measured(
    clips: Sequence[EvaluationClip],
    measures: dict[str, Measure],
    cache: MeasureCache,
    seconds: float | None,
    left_out: list[str],
) -> Iterator[tuple[EvaluationClip, dict[tuple[str, str], Tensor]]]:
    """What is measured of each clip that can be read."""
    results: dict[int, dict[str, Measured]] = {}
    sounds: dict[int, FileSound] = {}
    keys: dict[int, str] = {}
    for place, clip in enumerate(clips):
        try:
            keys[place] = content_key(clip.path, seconds)
            found = {
                name: cache.find(measure.identity, keys[place], measure.finite) for name, measure in measures.items()
            }
            results[place] = {name: measured for name, measured in found.items() if measured is not None}
            if len(results[place]) < len(measures):
                sounds[place] = _read(clip.path, seconds)
        except UserError as error:
            left_out.append(str(error))
            print_stderr(f"left out: {error}")
            results.pop(place, None)
    for name, measure in measures.items():
        missing = [place for place in results if name not in results[place]]
        for first in range(0, len(missing), measure.batch):
            places = missing[first : first + measure.batch]
            for place, measured in zip(places, measure.measure([sounds[place] for place in places]), strict=True):
                _check(clips[place].path, measure, measured)
                cache.keep(measure.identity, keys[place], measured)
                results[place][name] = measured
    for place in sorted(results):
        named = results[place].items()
        yield clips[place], {(name, part): vectors for name, own in named for part, vectors in own.items()}


def _read(path: Path, seconds: float | None) -> FileSound:
    with as_sound_error(path):
        return read_sound(path, seconds)


def _check(path: Path, measure: Measure, measured: Measured) -> None:
    if measure.finite and not all_finite(measured.values()):
        raise UserError(f"{path}: what {measure.name} makes of it is not finite; are the weights damaged?")
