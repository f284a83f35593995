"""Measures generated music by independent models: notes by basic-pitch, instruments by musicnn, and clean partials.

For every folder of waves with the JSONs that generation writes beside them, or with a captions.jsonl:

- frames with a confident note of basic-pitch's;
- the share of the notes in the major or minor scale that has most of them;
- notes per second, for prompts with "slow" and with "fast";
- the energy between partials (open_musiclm/metrics/partials.py);
- the share of clips whose instrument musicnn's tagger ranks first of eight, where benchmarks/musicnn_tags.py has
  written its file into the folder (musicnn needs an environment of its own).

    python benchmarks/tunes.py --note_tracker nmp.onnx results/tunes held_out_solos
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from note_tracker import Note, NoteTracker, confident_share, notes_of

from open_musiclm import audio, cli
from open_musiclm.data.captions import captions_of
from open_musiclm.errors import UserError
from open_musiclm.metrics.partials import energy_between_partials

TAGS_NAME = "musicnn_tags.json"
# the tags of musicnn's vocabulary (MagnaTagATune) that name an instrument of the prompts
INSTRUMENTS = ("piano", "violin", "flute", "harpsichord", "cello", "choir", "harp", "guitar")
_SLOW = re.compile(r"\b(slow|slowly|unhurried|leisurely)\b", re.IGNORECASE)
_FAST = re.compile(r"\b(fast|quick|quickly|rapid|lively|up-tempo)\b", re.IGNORECASE)
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11))  # major (a natural minor has its notes), harmonic minor
_PARTIALS_HZ = 24000  # the resolution of the partials depends on the sample rate


@dataclass(frozen=True)
class ClipMeasures:
    """The measurements of one clip; `in_key` is None without notes, `tag` is None without tags."""

    prompt: str
    confident: float
    in_key: float | None
    notes_per_second: float
    between_partials: float
    tag: str | None


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of waves")
    parser.add_argument("--note_tracker", type=Path, required=True, help="basic-pitch's model, nmp.onnx")
    parser.add_argument("--begin", type=float, default=0.0, help="seconds of each clip that are left out")
    parser.add_argument("--seconds", type=cli.positive_float, default=8.0, help="of each clip after them")
    return parser


def main(arguments: argparse.Namespace) -> None:
    tracker = NoteTracker(arguments.note_tracker)
    cli.print_stdout(
        "| folder | clips | frames with a note | notes in key | notes/s, slow | notes/s, fast | "
        "between partials, dB | instrument ranked first |"
    )
    cli.print_stdout("| --- " * 8 + "|")
    for folder in arguments.folders:
        clips = list(_clips(folder, tracker, arguments.begin, arguments.seconds))
        if not clips:
            raise UserError(f"{folder}: no clip of {arguments.begin + arguments.seconds:g} s with a prompt or caption")
        cli.print_stdout(f"| {folder} | {len(clips)} | {' | '.join(_figures(clips))} |")


def _figures(clips: Sequence[ClipMeasures]) -> Iterator[str]:
    yield _mean([clip.confident for clip in clips])
    yield _mean([clip.in_key for clip in clips if clip.in_key is not None])
    for words in (_SLOW, _FAST):
        yield _mean([clip.notes_per_second for clip in clips if words.search(clip.prompt)])
    yield _mean([clip.between_partials for clip in clips])
    yield _mean(
        [float(clip.tag == _instrument(clip.prompt)) for clip in clips if clip.tag and _instrument(clip.prompt)]
    )


def _mean(values: Sequence[float]) -> str:
    """Mean and standard error."""
    if not values:
        return ""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {error:.2f}"


def _clips(folder: Path, tracker: NoteTracker, begin: float, seconds: float) -> Iterator[ClipMeasures]:
    paths = sorted(audio.find_sounds(folder))
    captions = captions_of(paths, folder)
    tags = json.loads((folder / TAGS_NAME).read_text()) if (folder / TAGS_NAME).exists() else {}
    for path in paths:
        prompt = next(iter(captions.get(path, ())), None)
        sound = audio.read_sound(path)
        first, count = (audio.samples_of(value, sound.sample_hz) for value in (begin, seconds))
        if prompt is None or len(sound.wave) < first + count:
            continue
        part = audio.Sound(sound.wave[first : first + count], sound.sample_hz)
        activations = tracker.activations(part.wave, part.sample_hz)
        notes = notes_of(activations)
        yield ClipMeasures(
            prompt,
            confident_share(activations),
            in_key(notes) if notes else None,
            len(notes) / seconds,
            float(energy_between_partials(audio.resampled(part, _PARTIALS_HZ)[None], _PARTIALS_HZ)),
            _first_of(tags.get(path.name)),
        )


def in_key(notes: Sequence[Note]) -> float:
    """The share of the notes in the best of the 24 scales."""
    classes = np.bincount([note.key % 12 for note in notes], minlength=12)
    return max(
        float(classes[(np.array(scale) + tonic) % 12].sum()) / len(notes) for scale in _SCALES for tonic in range(12)
    )


def _first_of(scores: dict[str, float] | None) -> str | None:
    return None if scores is None else max(INSTRUMENTS, key=lambda name: scores[name])


def _instrument(prompt: str) -> str | None:
    """The first of the eight that a prompt names as a word of its own."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    return next((name for name in INSTRUMENTS if name in words), None)


if __name__ == "__main__":
    cli.run(main, arguments())
