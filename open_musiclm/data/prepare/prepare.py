"""Prepares a folder of music: examines and cuts its files in parallel, skips duplicates, splits by groups."""

import multiprocessing
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from open_musiclm.audio import artist_of, find_sounds
from open_musiclm.data.captions import captions_of
from open_musiclm.data.crop_preparation import stored_name
from open_musiclm.data.example_order import random_generator
from open_musiclm.data.prepare.audio_fingerprints import FingerprintIndex
from open_musiclm.data.prepare.manifest import ClipLine, Manifest, SourceLine, Split, encoded
from open_musiclm.data.prepare.sources import ClipOptions, Source, examine, write_clips
from open_musiclm.data.split import TRAINING_FOLDER, VALIDATION_FOLDER
from open_musiclm.data.unreadable_sounds import print_unreadable
from open_musiclm.data.workers import leave_signals_to_parent
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write, prepare_folder
from open_musiclm.interruption import Interruption
from open_musiclm.locking import FolderLock

SplitBy = Literal["artist", "folder", "file"]
_AHEAD = 4  # files a process that are examined before they are needed


@dataclass(frozen=True)
class PrepareOptions:
    """How a folder is prepared: see scripts/prepare_dataset.py."""

    clips: ClipOptions
    split_by: SplitBy
    valid_frac: float
    seed: int
    workers: int

    def recorded(self) -> dict[str, object]:
        """The options that a resumed run must not change."""
        return {**asdict(self.clips), "split_by": self.split_by, "valid_frac": self.valid_frac, "seed": self.seed}


@dataclass
class PrepareReport:
    """The results of the sources, in this run and earlier ones; `interrupted` is the signal that ended it early."""

    results: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    interrupted: int = 0


def prepare_dataset(folder: Path, output: Path, options: PrepareOptions) -> PrepareReport:
    """Writes clips of all music below `folder` to `output`; resumes an earlier run.

    A signal ends it after the files in work. Raises UserError; what is written stays, and nothing is overwritten.
    """
    if output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--results_folder {output}: is inside the folder of music {folder}; name another one")
    paths = {stored_name(path, folder): path for path in find_sounds(folder)}
    print_unreadable(folder)
    unnameable = [name for name in paths if not _is_unicode(name)]
    paths = {name: path for name, path in paths.items() if name not in unnameable}
    captions = captions_of(list(paths.values()), folder)
    prepare_folder(output)
    lock = FolderLock(output, called="--results_folder ")
    try:
        manifest = Manifest(output, options.recorded())
        groups = _groups(paths, options, manifest.groups)
        manifest.begin(_sides(Counter(groups.values()), options, manifest.groups))
        report = PrepareReport()
        with Interruption() as interruption:
            _prepare(paths, groups, captions, output, manifest, options, interruption)
            report.interrupted = interruption.number
    finally:
        lock.release()
    report.results["unusable"] += len(unnameable)
    reason = "a file name that is not valid Unicode; rename the file"
    report.problems += [f"{os.fsencode(name)!r}: {reason}" for name in unnameable]
    return _counted(manifest, report)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _prepare(
    paths: Mapping[str, Path],
    groups: Mapping[str, str],
    captions: Mapping[Path, Sequence[str]],
    output: Path,
    manifest: Manifest,
    options: PrepareOptions,
    interruption: Interruption,
) -> None:
    """Examines the sources that the manifest lacks, and writes those that are new, in the order of their names."""
    index, stems = FingerprintIndex(), _stems(paths, manifest.lines)
    for line in manifest.lines.values():
        known = line.audio_fingerprint()
        if known is not None:
            index.add(line.source, known)
    missing = [name for name in paths if name not in manifest.lines]
    bar = tqdm(total=len(paths), initial=len(paths) - len(missing), desc="preparing", unit="file")
    with bar, _pool(options.workers) as pool:
        writing: deque[tuple[SourceLine, Path, Future]] = deque()
        for name, source in _examined(pool, missing, paths, options, interruption):
            line = SourceLine(source=name, result="unusable", group=groups[name], reason=source.problem)
            found = None if source.audio_fingerprint is None else index.find(source.audio_fingerprint)
            if source.audio_fingerprint is None or found is not None:
                if found is not None:
                    line = line.model_copy(update={"result": "duplicate", "duplicate_of": found})
                writing.append((line, paths[name], _nothing()))
            else:
                index.add(name, source.audio_fingerprint)
                side = manifest.groups[groups[name]]
                files = [f"{side}/{stems[name]}_{number:03d}.flac" for number in range(len(source.segments))]
                line = line.model_copy(update={"result": "written", "fingerprint": encoded(source.audio_fingerprint)})
                writing.append((line, paths[name], pool.submit(write_clips, source, files, output, options.clips)))
            _finish(writing, manifest, captions, output, bar, most=options.workers)
        _finish(writing, manifest, captions, output, bar, most=0)


def _finish(
    writing: deque[tuple[SourceLine, Path, Future]],
    manifest: Manifest,
    captions: Mapping[Path, Sequence[str]],
    output: Path,
    bar: tqdm,
    most: int,
) -> None:
    """Waits for the oldest files in work until at most `most` are left; writes their captions and lines."""
    while len(writing) > most:
        line, path, future = writing.popleft()
        clips = _result(future)
        for clip in clips if path in captions else ():
            with atomic_write((output / clip.file).with_suffix(".txt")) as temporary:
                temporary.write_text(
                    "".join(f"{' '.join(text.split())}\n" for text in captions[path]), encoding="utf-8"
                )
        manifest.add(line.model_copy(update={"clips": [ClipLine(**asdict(clip)) for clip in clips]}))
        bar.update()


def _examined(
    pool: Executor,
    names: Sequence[str],
    paths: Mapping[str, Path],
    options: PrepareOptions,
    interruption: Interruption,
) -> Iterator[tuple[str, Source]]:
    """The sources in the order of names, examined some files ahead, up to a signal."""
    ahead: deque[tuple[str, Future[Source]]] = deque()
    left = deque(names)
    while (left or ahead) and not interruption.requested:
        while left and len(ahead) < _AHEAD * options.workers:
            name = left.popleft()
            ahead.append((name, pool.submit(examine, paths[name], options.clips)))
        name, future = ahead.popleft()
        yield name, _result(future)
    for _, future in ahead:
        future.cancel()


def _pool(workers: int) -> Executor:
    if workers == 1:
        return ThreadPoolExecutor(1)  # a process would begin with seconds of imports
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=partial(_begin_worker, 0))


def _begin_worker(number: int) -> None:
    leave_signals_to_parent(number)
    torch.set_num_threads(1)


def _nothing() -> Future:
    """The clips of a source that has none."""
    done: Future = Future()
    done.set_result([])
    return done


def _result(future: Future):  # type: ignore[no-untyped-def]
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker died (often for lack of memory); finished files are kept; lower --workers, run the same command"
        ) from error


def _groups(paths: Mapping[str, Path], options: PrepareOptions, known: Iterable[str]) -> dict[str, str]:
    """The group of each source, which must stay in one split: its artist, or its topmost folder.

    Names of artists that differ in case or width alone are one group, by the spelling of a known group or the first.
    """
    if options.split_by == "file":
        return {name: name for name in paths}
    folders = {name: name.partition("/")[0] for name in paths}
    if options.split_by == "folder":
        return folders
    spellings = {_folded(group): group for group in known}
    artists = {name: artist_of(path) or folders[name] for name, path in paths.items()}
    return {name: spellings.setdefault(_folded(artist), artist) for name, artist in artists.items()}


def _folded(artist: str) -> str:
    return unicodedata.normalize("NFKC", artist).casefold()


def _sides(sizes: Mapping[str, int], options: PrepareOptions, known: Mapping[str, Split]) -> dict[str, Split]:
    """The split of each group that is not `known`, of so many files: in random order, those that fit into the share
    of the files are for validation. Where none fits, it is the smallest, unless it has most of the files."""
    total = sum(sizes.values())
    wanted = options.valid_frac * total + 1e-9
    held_out = sum(count for group, count in sizes.items() if known.get(group) == "valid")
    chances = {group: random_generator(options.seed, *group.encode()).random() for group in sizes.keys() - known.keys()}
    sides: dict[str, Split] = dict.fromkeys(chances, "train")
    for group in sorted(chances, key=chances.__getitem__):
        if held_out + sizes[group] <= wanted:
            sides[group] = "valid"
            held_out += sizes[group]
    smallest = min(chances, key=lambda group: (sizes[group], chances[group]), default=None)
    if smallest and not held_out and options.valid_frac > 0 and sizes[smallest] <= total / 2:
        sides[smallest] = "valid"
    return sides


def _stems(names: Iterable[str], known: Mapping[str, SourceLine]) -> dict[str, str]:
    """The prefix of the clip names of each source that is not known: its path; with its suffix, and if need be a
    number, where another source has the same one. No two differ in case alone, which some file systems ignore."""
    plain = {name: str(Path(name).with_suffix("")) for name in names}
    counts = Counter(stem.casefold() for stem in plain.values())
    clips = (clip.file.partition("/")[2] for line in known.values() for clip in line.clips)
    taken = {clip.rpartition("_")[0].casefold() for clip in clips}
    stems = {}
    for name, stem in plain.items():
        if name in known:
            continue
        longer = f"{stem}_{Path(name).suffix[1:]}"
        options = chain([stem] if counts[stem.casefold()] == 1 else [], [longer], (f"{longer}_{n}" for n in count(2)))
        stems[name] = next(option for option in options if option.casefold() not in taken)
        taken.add(stems[name].casefold())
    return stems


def _counted(manifest: Manifest, report: PrepareReport) -> PrepareReport:
    for line in manifest.lines.values():
        report.results[line.result] += 1
        for clip in line.clips:
            report.clips[clip.file.partition("/")[0]] += 1
            report.seconds += clip.seconds
        if line.result == "duplicate":
            report.problems.append(f"{line.source}: the same sound as {line.duplicate_of}")
        elif line.result == "unusable":
            report.problems.append(str(line.reason))
    return report


def summary(report: PrepareReport, output: Path) -> Iterator[str]:
    """Lines for the person at the terminal."""
    yield from (f"left out: {problem}" for problem in report.problems)
    train, valid = report.clips[TRAINING_FOLDER], report.clips[VALIDATION_FOLDER]
    yield (
        f"wrote {train} clips to train on and {valid} to validate, {report.seconds / 3600:.2f} hours, to {output}; of "
        f"the sources {report.results['written']} are used, {report.results['duplicate']} are duplicates, "
        f"{report.results['unusable']} cannot be used"
    )
    if not valid and train:
        yield "no group is left to validate on; --split_by file splits by file, but then the validation loss is too low"
