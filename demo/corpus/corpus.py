"""A folder of captioned clips: renders those that are missing, on several processes."""

import json
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from demo.corpus.arrangement import Arrangement, arrange
from demo.corpus.captions import captions_for
from demo.corpus.excerpt import TEMPI
from demo.corpus.rendering import SAMPLE_HZ, render
from demo.corpus.scores import MODES, draw_score
from open_musiclm.audio import write_wave
from open_musiclm.config.json_files import parse_json
from open_musiclm.data.caption_lines import CAPTIONS_NAME
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write
from open_musiclm.locking import FolderLock
from open_musiclm.progress_bar import progress_bar
from open_musiclm.text_files import open_regular

MIXED = "mixed"
_SHORTEST, _LONGEST = 12.0, 20.0
_MOST_SCORES = 500
_EXCERPTS_OF_A_SCORE = 3


@dataclass(frozen=True)
class Clip:
    """A line of captions.jsonl: a sound file beside it and what is true of its sound.

    `instrument_family` is that of all its instruments, or "mixed"; `captions` are other wordings than `caption`.
    """

    file: str
    caption: str
    captions: list[str]
    instruments: list[str]
    instrument_family: str
    bpm: int
    tempo_class: str
    mode: str
    density: str
    register: str
    source_score: str
    seconds: float
    seed: int
    soundfont: str = ""  # its file name; empty: not recorded


_CLIP = TypeAdapter(Clip)


def make_corpus(folder: Path, hours: float, seed: int, soundfont: Path, workers: int) -> list[Clip]:
    """Renders the clips that `folder` lacks of the first `hours` of corpus `seed`; returns these, in order.

    The same seed, soundfont and number give the same clip on any number of workers. Files are written atomically; a
    clip without its line in captions.jsonl is rendered again. Clips of other seeds are not changed. Raises UserError,
    also if another run writes there, or if the folder has clips of this seed from another soundfont.
    """
    with FolderLock(folder):
        return _make_corpus(folder, hours, seed, soundfont, workers)


def _make_corpus(folder: Path, hours: float, seed: int, soundfont: Path, workers: int) -> list[Clip]:
    clips = read_clips(folder)
    wanted = list(_planned(hours, seed))
    names = [clip_name(seed, number) for number, _ in wanted]
    others = {clips[name].soundfont for name in names if name in clips} - {"", soundfont.name}
    if others:
        raise UserError(
            f"{folder}: has clips of seed {seed} played by {min(others)}, not by {soundfont.name}; take that "
            "soundfont, another --seed or another folder"
        )
    missing = [(number, seconds) for (number, seconds), name in zip(wanted, names, strict=True) if name not in clips]
    _write_clips(folder, clips)
    with (
        progress_bar(round(sum(seconds for _, seconds in wanted)), "rendering", "s", smoothing=0) as bar,
        (folder / CAPTIONS_NAME).open("a", encoding="utf-8") as lines,
    ):
        bar.update(bar.total - round(sum(seconds for _, seconds in missing)))
        for clip in _rendered(folder, missing, seed, soundfont, workers):
            clips[clip.file] = clip
            lines.write(_line(clip))
            lines.flush()
            bar.update(round(clip.seconds))
    _write_clips(folder, clips)
    return [clips[name] for name in names]


def clip_name(seed: int, number: int) -> str:
    """The file name of a clip."""
    return f"{seed}_{number:05d}.flac"


def make_clip(folder: Path, number: int, seed: int, soundfont: Path) -> Clip:
    """Renders clip `number` of corpus `seed`. Raises UserError."""
    rng = np.random.default_rng((seed, number))
    seconds = _seconds(rng)
    arrangement = _arrangement(seconds, rng)
    wave = render(arrangement.voices, seconds, soundfont, rng)
    caption, *others = captions_for(arrangement, rng)
    name = clip_name(seed, number)
    write_wave(folder / name, torch.from_numpy(wave), SAMPLE_HZ)
    families = {voice.instrument.family for voice in arrangement.voices}
    return Clip(
        file=name,
        caption=caption,
        captions=[caption, *others],
        instruments=[voice.instrument.name for voice in arrangement.voices],
        instrument_family=families.pop() if len(families) == 1 else MIXED,
        bpm=arrangement.bpm,
        tempo_class=arrangement.tempo,
        mode=arrangement.mode,
        density=arrangement.density,
        register=arrangement.register,
        source_score=arrangement.source,
        seconds=seconds,
        seed=seed,
        soundfont=soundfont.name,
    )


def _arrangement(seconds: float, rng: np.random.Generator) -> Arrangement:
    """The first excerpt of a random score that is in a random mode and fits a random tempo."""
    tempo, mode = TEMPI[rng.integers(len(TEMPI))], MODES[rng.integers(len(MODES))]
    for _ in range(_MOST_SCORES):
        score = draw_score(mode, rng)
        if score is None:
            continue
        for _ in range(_EXCERPTS_OF_A_SCORE):
            arrangement = arrange(score, tempo, mode, seconds, rng)
            if arrangement is not None:
                return arrangement
    raise UserError(f"none of {_MOST_SCORES} scores could be played; is music21 installed with its corpus?")


def _seconds(rng: np.random.Generator) -> float:
    return round(float(rng.uniform(_SHORTEST, _LONGEST)), 2)


def _planned(hours: float, seed: int) -> Iterator[tuple[int, float]]:
    """Number and seconds of the first clips whose sum reaches `hours`."""
    total, number = 0.0, 0
    while total < hours * 3600:
        seconds = _seconds(np.random.default_rng((seed, number)))
        yield number, seconds
        total, number = total + seconds, number + 1


def _rendered(folder: Path, clips: list[tuple[int, float]], seed: int, soundfont: Path, workers: int) -> Iterator[Clip]:
    """The clips in the order they are finished, rendered by that many processes, or by this one if one is enough."""
    workers = min(workers, math.ceil(len(clips) / 2))
    if workers <= 1:
        yield from (make_clip(folder, number, seed, soundfont) for number, _ in clips)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures: list[Future[Clip]] = [pool.submit(make_clip, folder, number, seed, soundfont) for number, _ in clips]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_clips(folder: Path) -> dict[str, Clip]:
    """The clips of a corpus by file name, that have both a line and a sound; a line cut short is skipped.

    Raises UserError if a line is of no clip, such as a caption of another folder: writing would lose it.
    """
    path = folder / CAPTIONS_NAME
    if not path.exists():
        return {}
    clips = {}
    with open_regular(path) as file:
        for line in file:
            try:
                clip = _CLIP.validate_python(parse_json(line.decode("utf-8", errors="replace"), str(path)))
            except ValidationError as error:
                raise UserError(f"{path}: has captions of other sounds; name another folder") from error
            except UserError:
                continue
            if (folder / clip.file).is_file():
                clips[clip.file] = clip
    return clips


def _write_clips(folder: Path, clips: dict[str, Clip]) -> None:
    with atomic_write(folder / CAPTIONS_NAME) as temporary:
        temporary.write_text("".join(_line(clips[name]) for name in sorted(clips)), encoding="utf-8")


def _line(clip: Clip) -> str:
    return json.dumps(asdict(clip), ensure_ascii=False) + "\n"
