"""Edits of sound files: each is written as soon as it is generated, with a JSON that describes the edit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from open_musiclm.audio import (
    AROUND_SECONDS,
    FileSound,
    Patch,
    Sound,
    read_channels,
    read_sound,
    samples_of,
    write_patched,
)
from open_musiclm.config import StageName
from open_musiclm.config.prompt_text import INFILLING_OF, VARIATION_OF
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write, prepare_folder, write_json
from open_musiclm.generation.checks import check_segment
from open_musiclm.generation.edit_options import Edit, Infill, Variation
from open_musiclm.generation.generate_files import check_held_length
from open_musiclm.generation.infilling import Infilled
from open_musiclm.generation.musiclm import MusicLM, variation_config
from open_musiclm.generation.output import Provenance, record_of, slug, slugs_of_files, write_generated
from open_musiclm.generation.progress import stage_progress
from open_musiclm.generation.prompts.prompt_checks import check_steady_prompts
from open_musiclm.generation.prompts.prompting import SteadyPrompt, number_text
from open_musiclm.generation.prompts.story import AnyPrompt


@dataclass(frozen=True)
class Edited:
    """An edited sound: its scores by their names, and its path."""

    scores: Mapping[str, float]
    path: Path

    def __str__(self) -> str:
        return "  ".join([*(f"{name} {score:.3f}" for name, score in self.scores.items()), str(self.path)])


def edit_files(
    model: MusicLM, edit: Edit, prompts: Sequence[AnyPrompt], results_folder: Path | str, paths: Mapping[str, str]
) -> Iterator[Edited]:
    """Writes what `infill_files` or `vary_files` does. Raises UserError."""
    if isinstance(edit, Variation):
        return vary_files(model, edit, results_folder, paths)
    return infill_files(model, edit, prompts, results_folder, paths)


def infill_files(
    model: MusicLM, edit: Infill, prompts: Sequence[AnyPrompt], results_folder: Path | str, paths: Mapping[str, str]
) -> Iterator[Edited]:
    """Writes the sound file with regenerated seconds, once per prompt; without prompts once, in its own style.

    A wave has the rate, channels and sample format of its source; the other samples stay unchanged, bit for bit.
    `paths`, where the model comes from, goes into the JSONs. Raises UserError.
    """
    folder, config = Path(results_folder), model.generation_config
    prepare_folder(folder)
    sound = read_sound(edit.source)
    end = sound.seconds if edit.end is None else edit.end
    try:
        check_segment(sound, edit.start, end)
    except UserError as error:
        raise UserError(f"{edit.source}: {error}") from error
    asked: Sequence[SteadyPrompt | None] = check_steady_prompts(prompts) if prompts else [None]
    for prompt in asked:
        with stage_progress() as progress:
            infilled = model.infill(sound, edit.start, end, prompt, edit.num_candidates, config, progress)
        names = [
            *slugs_of_files([edit.source]),
            f"{number_text(edit.start)}-{number_text(end)}",
            *([slug(str(prompt))] if prompt else []),
        ]
        path = folder / f"{'_'.join(names)}_seed{config.seed}.wav"
        patch = _patch(edit.source, infilled)
        scores = _scores(model, infilled, patch, prompt)
        facts = {INFILLING_OF: str(edit.source), "regenerated_seconds": [edit.start, end]}
        if infilled.log_likelihoods:
            facts["log_likelihoods"] = [round(score, 6) for score in infilled.log_likelihoods]
        settings = config.updated({"loudness": None, "duration": end - edit.start})
        provenance = Provenance(prompt or edit.source.name, infilled.chosen, scores, settings, paths, facts)
        _write(path, edit.source, infilled.sound, patch, provenance)
        yield Edited(scores, path)


def vary_files(
    model: MusicLM, edit: Variation, results_folder: Path | str, paths: Mapping[str, str]
) -> Iterator[Edited]:
    """Writes the variations of a sound file, each with its similarity to it.

    Raises UserError, also if those of a batch take too much memory.
    """
    config, sound = model.generation_config, read_sound(edit.source)
    at_once = min(edit.number, config.max_batch_size)
    check_held_length(str(edit.source), at_once, sound.seconds, "lower max_batch_size, or vary a shorter sound")
    prepare_folder(Path(results_folder))
    (short,) = slugs_of_files([edit.source])
    prefix = f"{short}_{edit.first_stage}_variation_seed{config.seed}"
    names = [f"{prefix}_{number}" for number in range(1, edit.number + 1)]
    yield from _write_variations(model, sound, edit.first_stage, names, Path(results_folder), paths)


def regenerate_files(
    model: MusicLM,
    sounds: Sequence[Path | str],
    first_stage: StageName,
    results_folder: Path | str,
    paths: Mapping[str, str],
) -> Iterator[Edited]:
    """Writes one variation of each sound file, with its similarity to it. Raises UserError."""
    sources, folder = [Path(sound) for sound in sounds], Path(results_folder)
    prepare_folder(folder)
    for source, short in zip(sources, slugs_of_files(sources), strict=True):
        name = f"{short}_seed{model.generation_config.seed}_{first_stage}"
        yield from _write_variations(model, read_sound(source), first_stage, [name], folder, paths)


def _write_variations(
    model: MusicLM,
    sound: FileSound,
    first_stage: StageName,
    names: Sequence[str],
    folder: Path,
    paths: Mapping[str, str],
) -> Iterator[Edited]:
    """One variation of the sound under each name, written as soon as it is generated."""
    config = variation_config(model.generation_config, first_stage, sound.seconds)
    own, facts = model.embed_sound(sound), {VARIATION_OF: str(sound.path), "first_stage": first_stage}
    with stage_progress() as progress:
        waves = model.vary(sound, first_stage, len(names), sound.path.name, config, progress)
        for number, (name, wave) in enumerate(zip(names, waves, strict=True)):
            scores = {"similarity": float(own @ model.embed_sound(Sound(wave, model.sample_hz)))}
            provenance = Provenance(sound.path.name, number, scores, config, paths, facts)
            yield Edited(scores, write_generated(folder, name, wave, model.sample_hz, provenance))


def _patch(source: Path, infilled: Infilled) -> Patch:
    """The new seconds with the loudness of all channels of the file around them."""
    around = samples_of(AROUND_SECONDS, infilled.sound.sample_hz)
    begin = max(infilled.first - around, 0)
    before = read_channels(source, begin, infilled.first - begin)
    return infilled.patch_between(before, read_channels(source, infilled.end, around))


def _scores(model: MusicLM, infilled: Infilled, patch: Patch, prompt: SteadyPrompt | None) -> dict[str, float]:
    scores = {}
    if prompt is not None:
        new = Sound(torch.from_numpy(patch.wave), infilled.sound.sample_hz)
        scores["similarity"] = float(model.embed_sound(new) @ model.embed_prompts([prompt])[0])
    if infilled.log_likelihoods:
        scores["log_likelihood"] = infilled.log_likelihoods[infilled.chosen]
    return scores


def _write(path: Path, source: Path, sound: Sound, patch: Patch, provenance: Provenance) -> None:
    wave = torch.from_numpy(patch.onto(sound.wave.numpy()[:, None], 0))
    record = record_of(provenance, len(wave), sound.sample_hz, float(wave.double().square().mean().sqrt()))
    with atomic_write(path) as temporary:
        write_patched(temporary, source, patch)
        write_json(path.with_suffix(".json"), record)
