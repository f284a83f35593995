"""Evaluates folders of clips against a folder of reference music: measures, compares, writes a card and a page."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from open_musiclm.errors import UserError
from open_musiclm.evaluation.cache import MeasureCache
from open_musiclm.evaluation.card import evaluation_card
from open_musiclm.evaluation.clips import find_clips
from open_musiclm.evaluation.compare import Comparison, compare, describe, length_warning
from open_musiclm.evaluation.measure import Measure
from open_musiclm.evaluation.measured_set import measure_set
from open_musiclm.evaluation.options import EvaluationOptions
from open_musiclm.evaluation.page import evaluation_page, number
from open_musiclm.evaluation.set_names import REFERENCE, named_sets
from open_musiclm.files import atomic_write, prepare_folder, write_html, write_json

CARD_NAME, PAGE_NAME, CLIPS_NAME = "card.json", "evaluation.html", "clips.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """The reference by itself, every set by name, and all warnings."""

    reference: Comparison
    sets: Mapping[str, Comparison]
    warnings: Sequence[str]


def check_packages() -> None:
    """Raises UserError if a package of the extra is missing."""
    missing = [name for name in ("librosa", "matplotlib") if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed, for tempo and plots: pip install '.[evaluate]'")


def evaluate(measures: Mapping[str, Measure], options: EvaluationOptions) -> Evaluation:
    """Measures all folders and writes card.json, clips.jsonl and evaluation.html. Raises UserError."""
    if not options.folders:
        raise UserError("nothing to evaluate: name a folder of sound, or give --prompts to generate")
    names = named_sets(options.folders, options.reference)
    prepare_folder(options.results_folder)
    cache = MeasureCache(options.cache_folder)
    clips = {
        folder: find_clips(folder, options.most_clips, options.resampling.seed)
        for folder in dict.fromkeys((options.reference, *names.values()))
    }
    # the model's own CLAP embeds only once, if it is also the embedding model
    needed = {name: own for name, own in measures.items() if name != "own_clap" or own is not measures.get("clap")}
    measured = {folder: measure_set(folder, own, needed, cache, options.seconds) for folder, own in clips.items()}
    reference = describe(measured[options.reference], measures, options.metrics, options.resampling)
    sets = {
        name: compare(measured[folder], measured[options.reference], measures, options.metrics, options.resampling)
        for name, folder in names.items()
    }
    evaluation = Evaluation(reference, sets, list(_warnings(reference, sets)))
    card = evaluation_card(reference, sets, evaluation.warnings, measures, options)
    write_json(options.results_folder / CARD_NAME, card)
    _write_clips(options.results_folder / CLIPS_NAME, sets)
    write_html(options.results_folder / PAGE_NAME, evaluation_page(reference, sets, evaluation.warnings, card))
    return evaluation


def _warnings(reference: Comparison, sets: Mapping[str, Comparison]) -> Iterator[str]:
    """Merges equal warnings of several sets."""
    names: dict[str, list[str]] = {}
    for name, own in sets.items():
        unlike = length_warning(own, reference)
        for line in [*([unlike] if unlike else []), *own.warnings()]:
            names.setdefault(line, []).append(name)
    yield from (f"{', '.join(of)}: {line}" for line, of in names.items())
    for name, own in sets.items():
        if own.measured.folder.resolve() == reference.measured.folder.resolve():
            yield f"{name}: this is the reference itself, so distances are meaningless"
    for name, own in ((REFERENCE, reference), *sets.items()):
        if own.measured.left_out:
            yield f"{name}: {len(own.measured.left_out)} sounds skipped, such as {own.measured.left_out[0]}"


def _write_clips(path: Path, sets: Mapping[str, Comparison]) -> None:
    """A line for every clip: its set, file, prompt and numbers; what is unknown is null."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for name, own in sets.items():
            for place, clip in enumerate(own.measured.clips):
                numbers = {key: _known(float(values[place])) for key, values in own.per_clip.items()}
                line = {"set": name, "file": str(clip.path), "prompt": clip.prompt, **numbers}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summary(evaluation: Evaluation) -> Iterator[str]:
    """Every figure of every set with its interval."""
    for name, own in evaluation.sets.items():
        yield f"{name}, {len(own.measured.clips)} clips:"
        for figure in own.figures:
            if figure.value is None:
                yield f"  {figure.title}: {figure.note}"
            else:
                ends = "" if figure.low is None else f" [{number(figure.low)}, {number(figure.high or 0)}]"
                yield f"  {figure.title}: {number(figure.value)}{ends}"
