"""What training would see in a folder of sound, and whether that is enough for a config."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from open_musiclm.audio import SoundError, find_sounds, sound_info, wave_statistics
from open_musiclm.config import ModelConfig, StageTrainerConfig, TrainingConfig
from open_musiclm.data.sound_dataset import split

# A second of sound that is heard more often than this is learnt by heart (FMA's 880 hours: about 20 times).
MOST_PASSES = 100
_QUANTILES = (0, 10, 50, 90, 100)
_LARGEST_SHORT_SHARE = 0.5
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class CheckedFile:
    """One sound file: what its header says (absent where it has none) and why it cannot be used, if so."""

    path: Path
    format: str | None = None
    sample_hz: int | None = None
    channels: int | None = None
    seconds: float | None = None
    problem: str | None = None


class Findings(NamedTuple):
    """What a config would make of the usable files: lines of facts, and of warnings with their remedies."""

    facts: list[str]
    warnings: list[str]


def check_file(path: Path) -> CheckedFile:
    """Decodes a whole file; problems are those that would make training skip it."""
    try:
        info = sound_info(path)
    except SoundError as error:
        return CheckedFile(path, problem=str(error))
    try:
        wave_statistics(path)
        problem = None
    except SoundError as error:
        problem = str(error)
    return CheckedFile(path, info.format, info.sample_hz, info.channels, info.seconds, problem)


def check_folder(folder: Path) -> list[CheckedFile]:
    """Every sound file below `folder`, in order. Raises UserError where there is none."""
    paths = find_sounds(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(check_file, paths), total=len(paths), unit="file", desc="listening"))


def usable(files: Sequence[CheckedFile]) -> list[CheckedFile]:
    """The files without a problem."""
    return [file for file in files if file.problem is None]


def describe(files: Sequence[CheckedFile]) -> Iterator[str]:
    """Lines about the files: hours, formats, rates, channels, lengths, and each one that cannot be used."""
    good = usable(files)
    lengths = _seconds(good)
    yield f"files     {len(files)}, of which {len(good)} can be used: {_hours(lengths):.2f} hours"
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


def enough_for(files: Sequence[CheckedFile], model: ModelConfig, training: TrainingConfig) -> Findings:
    """Whether the usable files are enough to train `model` as `training` says, on one process."""
    good = usable(files)
    facts: list[str] = []
    warnings: list[str] = []
    for name, seconds in _windows(model).items():
        share = float(np.mean(_seconds(good) < seconds)) if good else 1.0
        facts.append(f"{name} window {seconds:g} s: {share:.0%} of the files are shorter")
        if share > _LARGEST_SHORT_SHARE:
            warnings.append(f"most files are shorter than the {name} window of {seconds:g} s and would be repeated")
    below = sum((file.sample_hz or 0) < model.encodec_cfg.sample_hz for file in good)
    if below:
        warnings.append(f"{below} files are below the codec's {model.encodec_cfg.sample_hz} Hz and sound dull")
    _check_tokenizers(good, model, training, facts, warnings)
    for stage in (training.semantic_trainer_cfg, training.coarse_trainer_cfg, training.fine_trainer_cfg):
        if stage is not None:
            _check_stage(good, stage, model.window_seconds(stage.stage), facts, warnings)
    return Findings(facts, warnings)


def _check_tokenizers(
    good: Sequence[CheckedFile], model: ModelConfig, training: TrainingConfig, facts: list[str], warnings: list[str]
) -> None:
    rvq, kmeans = training.clap_rvq_trainer_cfg, training.hubert_kmeans_trainer_cfg
    if rvq is not None:
        window, codes = model.global_cfg.clap_audio_length_seconds, model.clap_rvq_cfg.codebook_size
        heard = rvq.num_train_steps * rvq.accumulate_batches * rvq.batch_size * window
        facts.append(f"CLAP RVQ: every second heard {_passes(heard, good):,.1f} times")
        distinct = int(sum(max(seconds / window, 1) for seconds in _seconds(good)))
        if distinct < codes:
            warnings.append(f"CLAP RVQ: the sound holds {distinct} windows that do not overlap for {codes} codes")
    if kmeans is not None:
        crops = kmeans.feature_extraction_num_steps * kmeans.feature_extraction_batch_size
        heard = crops * model.global_cfg.semantic_audio_length_seconds
        facts.append(f"k-means: every second heard {_passes(heard, good):,.1f} times")


def _check_stage(
    good: Sequence[CheckedFile], stage: StageTrainerConfig, window: float, facts: list[str], warnings: list[str]
) -> None:
    train, valid = split([file.path for file in good], stage.valid_frac, stage.seed)
    chosen = set(train)
    heard = stage.num_train_steps * stage.batch_size * stage.grad_accum_every * window
    passes = _passes(heard, [file for file in good if file.path in chosen])
    facts.append(
        f"{stage.stage} stage: {len(train)} files to train on, {len(valid)} to validate; every second heard "
        f"{passes:,.1f} times in {stage.num_train_steps:,} steps"
    )
    if not train or (stage.valid_frac > 0 and not valid):
        warnings.append(f"{stage.stage} stage: at least two usable files are needed, one of them to validate")
    elif passes > MOST_PASSES:
        hours = heard / MOST_PASSES / _SECONDS_PER_HOUR
        steps = int(stage.num_train_steps * MOST_PASSES / passes)
        warnings.append(
            f"{stage.stage} stage: so much repetition is learnt by heart; give {hours:,.1f} hours of sound, "
            f"or set num_train_steps to at most {max(steps, 1):,}"
        )


def _windows(model: ModelConfig) -> dict[str, float]:
    stages = {name: model.window_seconds(name) for name in ("semantic", "coarse", "fine")}
    return {"CLAP": model.global_cfg.clap_audio_length_seconds, **stages}


def _passes(heard_seconds: float, files: Sequence[CheckedFile]) -> float:
    return heard_seconds / max(float(_seconds(files).sum()), 1e-9) if files else 0.0


def _seconds(files: Sequence[CheckedFile]) -> np.ndarray:
    return np.array([file.seconds or 0.0 for file in files])


def _hours(lengths: np.ndarray) -> float:
    return float(lengths.sum()) / _SECONDS_PER_HOUR


def _counted(values: Sequence[str | None]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in Counter(values).most_common()) or "none"
