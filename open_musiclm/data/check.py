"""Whether a folder of sound is enough to train a model with given configs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from open_musiclm.config import ModelConfig, StageTrainerConfig, TrainingConfig
from open_musiclm.data.captions import caption_problems, captions_of
from open_musiclm.data.check_files import CheckedFile, check_folder, describe, seconds_of, usable
from open_musiclm.data.split import split_folder
from open_musiclm.files import atomic_write, prepare_folder
from open_musiclm.tokens import token_streams

# Training memorizes sound that it uses more often than this (FMA's 880 hours: about 20 times).
MOST_PASSES = 100
REPORT_NAME = "check_data.txt"
_LARGEST_SHORT_SHARE = 0.5
_SECONDS_PER_HOUR = 3600


class Finding(NamedTuple):
    """A line about the files: a fact, or a warning with its remedy."""

    text: str
    is_warning: bool = False


class Findings(NamedTuple):
    """The check of the usable files against a config: lines of facts, and warnings with remedies."""

    facts: list[str]
    warnings: list[str]


def check_data(
    folder: Path, configs: Mapping[str, tuple[ModelConfig, TrainingConfig]], results_folder: Path | None = None
) -> list[str]:
    """Decodes every sound file below `folder`, and compares them with each pair of configs, named by its title.

    Returns lines for the person at the terminal, and writes them to check_data.txt in `results_folder`. Raises
    UserError if there is no sound file, or if writing fails.
    """
    if results_folder is not None:
        prepare_folder(results_folder)
    files = check_folder(folder)
    captions = Captions.found(files, folder)
    lines = [*describe(files), *captions.lines(), *_by_config(files, configs, folder, captions)]
    summary = f"\n{len(usable(files))} of {len(files)} files can be used; nothing was changed"
    if results_folder is None:
        return [*lines, summary]
    target = results_folder / REPORT_NAME
    with atomic_write(target) as temporary:
        text = "".join(f"{line}\n" for line in lines)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # of file names that are not UTF-8
    return [*lines, f"wrote {target}", summary]


@dataclass(frozen=True)
class Captions:
    """How many of the usable files have captions, and what is wrong with captions."""

    files: int = 0
    problems: Sequence[str] = ()

    @classmethod
    def found(cls, files: Sequence[CheckedFile], folder: Path) -> "Captions":
        """Those below a folder."""
        paths = [file.path for file in usable(files)]
        problems = caption_problems([file.path for file in files], folder)
        return cls(0 if problems else len(captions_of(paths, folder)), problems)

    def lines(self) -> Iterator[str]:
        """Lines for the person at the terminal; none if there are no captions."""
        if self.files:
            yield f"captions  {self.files} files have some"
        if self.problems:
            yield f"captions  {len(self.problems)} faults; training with caption_share needs them corrected"
        yield from (f"  {problem}" for problem in self.problems)


def enough_for(
    files: Sequence[CheckedFile],
    model: ModelConfig,
    training: TrainingConfig,
    folder: Path = Path(),
    captions: Captions | None = None,
) -> Findings:
    """Checks whether the usable files below `folder` are enough to train `model` with `training`, on one process."""
    good = usable(files)
    found = [*_windows(good, model), *_sample_rates(good, model), *_tokenizers(good, model, training)]
    for name in model.stage_names:
        stage = getattr(training, f"{name}_trainer_cfg")
        if stage is not None:
            found += _stage(good, stage, model.window_seconds(stage.stage), folder)
            found += _captions(stage, captions or Captions())
    return Findings(
        [finding.text for finding in found if not finding.is_warning],
        [finding.text for finding in found if finding.is_warning],
    )


def _by_config(
    files: Sequence[CheckedFile],
    configs: Mapping[str, tuple[ModelConfig, TrainingConfig]],
    folder: Path,
    captions: Captions,
) -> Iterator[str]:
    """The findings of each pair of configs. Pairs with equal findings share a paragraph."""
    titles: dict[tuple[str, ...], list[str]] = {}
    for title, (model, training) in configs.items():
        facts, warnings = enough_for(files, model, training, folder, captions)
        verdict = [f"  ! {warning}" for warning in warnings] or ["  enough"]
        titles.setdefault((*(f"  {fact}" for fact in facts), *verdict), []).append(title)
    for lines, equal in titles.items():
        yield from ("", *(f"{title}:" for title in equal), *lines)


def _windows(good: Sequence[CheckedFile], model: ModelConfig) -> Iterator[Finding]:
    stages: dict[str, float] = {name: model.window_seconds(name) for name in model.stage_names}
    for name, seconds in {"CLAP": model.global_cfg.clap_audio_length_seconds, **stages}.items():
        share = float(np.mean(seconds_of(good) < seconds)) if good else 1.0
        yield Finding(f"{name} window {seconds:g} s: {share:.0%} of the files are shorter")
        if share > _LARGEST_SHORT_SHARE:
            yield Finding(f"most files are shorter than the {name} window of {seconds:g} s and would be repeated", True)


def _sample_rates(good: Sequence[CheckedFile], model: ModelConfig) -> Iterator[Finding]:
    below = sum((file.sample_hz or 0) < model.encodec_cfg.sample_hz for file in good)
    if below:
        yield Finding(
            f"{below} files are below the codec's {model.encodec_cfg.sample_hz} Hz and lack high frequencies", True
        )


def _tokenizers(good: Sequence[CheckedFile], model: ModelConfig, training: TrainingConfig) -> Iterator[Finding]:
    rvq, kmeans = training.clap_rvq_trainer_cfg, training.hubert_kmeans_trainer_cfg
    if rvq is not None:
        window, codes = model.global_cfg.clap_audio_length_seconds, token_streams(model)["clap"].codebook_size
        used = rvq.num_train_steps * rvq.accumulate_batches * rvq.batch_size * window
        yield Finding(f"CLAP RVQ: every second used {_passes(used, good):,.1f} times")
        distinct = int(sum(max(seconds / window, 1) for seconds in seconds_of(good)))
        if distinct < codes:
            yield Finding(
                f"CLAP RVQ: the sound holds {distinct} windows that do not overlap for {codes} codes", is_warning=True
            )
    if kmeans is not None:
        crops = kmeans.feature_extraction_num_steps * kmeans.feature_extraction_batch_size
        used = crops * model.window_seconds("semantic")
        yield Finding(f"k-means: every second used {_passes(used, good):,.1f} times")


def _captions(stage: StageTrainerConfig, captions: Captions) -> Iterator[Finding]:
    if stage.caption_share and not captions.files:
        what = "captions have faults (above)" if captions.problems else "no file has one: write a .txt beside each"
        yield Finding(f"{stage.stage} stage: caption_share {stage.caption_share:g}, but {what}", is_warning=True)


def _stage(good: Sequence[CheckedFile], stage: StageTrainerConfig, window: float, folder: Path) -> Iterator[Finding]:
    train, valid = split_folder([file.path for file in good], folder, stage.valid_frac, stage.seed)
    chosen = set(train)
    examples, steps = stage.batch_size * stage.grad_accum_every, stage.num_train_steps
    if stage.repeat is not None:
        steps = min(steps, max(math.ceil(stage.repeat * len(train) / examples), 1))
    used = steps * examples * window
    passes = _passes(used, [file for file in good if file.path in chosen])
    yield Finding(
        f"{stage.stage} stage: {len(train)} files to train on, {len(valid)} to validate; every second used "
        f"{passes:,.1f} times in {steps:,} steps"
    )
    if not train or (stage.valid_frac > 0 and not valid):
        yield Finding(
            f"{stage.stage} stage: at least two usable files are needed, one of them to validate", is_warning=True
        )
    elif passes > MOST_PASSES:
        hours = used / MOST_PASSES / _SECONDS_PER_HOUR
        yield Finding(
            f"{stage.stage} stage: so many repetitions lead to memorization; give {hours:,.1f} hours of sound, "
            f"or set num_train_steps to at most {max(int(steps * MOST_PASSES / passes), 1):,}",
            is_warning=True,
        )


def _passes(used_seconds: float, files: Sequence[CheckedFile]) -> float:
    """How often training uses each second of the files."""
    return used_seconds / max(float(seconds_of(files).sum()), 1e-9) if files else 0.0
