"""What the inference scripts share: from a model and prompts to ranked waves on disk, written as early as possible."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from open_musiclm.audio import FileSound, Sound, read_sound, samples_of
from open_musiclm.config import GenerationConfig
from open_musiclm.config.prompt_text import CONTINUATION_OF
from open_musiclm.errors import UserError
from open_musiclm.files import prepare_folder, temporary_path
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.output import Provenance, slug, slugs_of_files, write_generated
from open_musiclm.generation.progress import Progress, stage_progress
from open_musiclm.generation.prompts.story import AnyPrompt, during
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.generation.search import Candidate, best_of_each
from open_musiclm.generation.session import requests_of
from open_musiclm.generation.spool import SpooledWave

# A single sample per prompt needs no ranking: if it is long, it is written to disk while it is generated.
STREAMED_SECONDS = 60.0
# Other samples are kept in memory: 0.35 GB per hour at 24 kHz, and twice that while they are scored.
MOST_HELD_SECONDS = 3 * 3600.0


@dataclass(frozen=True)
class Written:
    """A candidate and the path of its wave; a wave that was written while it was generated is not in the candidate."""

    candidate: Candidate
    path: Path

    def __str__(self) -> str:
        return f"{self.candidate}  {self.path}"


def lines_of(written: Sequence[Written]) -> Iterator[str]:
    """The lines that a script prints about the waves of one prompt."""
    yield f"{str(written[0].candidate.prompt)!r}:"
    yield from (f"  {sample}" for sample in written)


def generate_files(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    results_folder: Path | str,
    paths: Mapping[str, str],
    input_audio: Path | str | None = None,
) -> Iterator[list[Written]]:
    """Writes the `num_top_matches` best of `num_samples` of each prompt, as the model's generation config says.

    Yields those of each prompt as soon as they are written. `paths`, where the model comes from, goes into the JSONs.
    Raises UserError.
    """
    config, folder = model.generation_config, Path(results_folder)
    given = read_sound(input_audio) if input_audio else None
    streamed = _streamed(config, given)
    if not streamed:
        _check_ranked_length(config, len(prompts), given)
    prepare_folder(folder)
    with stage_progress() as progress:
        if streamed:
            for written in _stream_files(model, prompts, folder, paths, given, progress):
                yield [written]
            return
        for own in best_of_each(model, prompts, ClapScorer(model), config, given, progress):
            yield write_candidates(model, own, folder, paths, given)


def write_candidates(
    model: MusicLM,
    candidates: Sequence[Candidate],
    folder: Path,
    paths: Mapping[str, str],
    given: FileSound | None = None,
) -> list[Written]:
    """Writes the first `num_top_matches` candidates of a prompt under names made from it, and from the sound that they
    continue. Raises UserError."""
    config = model.generation_config
    written = []
    for rank, candidate in enumerate(candidates[: config.num_top_matches], start=1):
        scores, facts = {candidate.score_name: candidate.score}, _continuation(given)
        provenance = Provenance(candidate.prompt, candidate.number, scores, config, paths, facts)
        name = _name(candidate.prompt, config, rank, given)
        path = write_generated(folder, name, candidate.wave, model.sample_hz, provenance)
        written.append(Written(candidate, path))
    return written


def check_held_length(what: str, samples: int, seconds: float, advice: str) -> None:
    """Raises UserError if so many samples of so many seconds take too much memory; `what` names what makes them so
    long, `advice` says what to do."""
    held = samples * seconds
    if held > MOST_HELD_SECONDS:
        raise UserError(
            f"{what}: {samples} samples are {held / 3600:.1f} hours of music, which stay in memory; "
            f"at most {MOST_HELD_SECONDS / 3600:g} hours can; {advice}"
        )


def _check_ranked_length(config: GenerationConfig, prompts: int, given: Sound | None) -> None:
    what, seconds = f"duration {config.duration:g}", config.duration + _given_seconds(given)
    if given is not None:
        what += f" after {given.seconds:g} s of given sound"
    # those of a batch, and those before it whose prompt is not complete
    at_once = min(config.num_samples * prompts, config.max_batch_size + config.num_samples - 1)
    advice = (
        "lower num_samples and max_batch_size, or set num_samples 1: it is written while it is generated, without a "
        "limit"
    )
    check_held_length(what, at_once, seconds, advice)


def _streamed(config: GenerationConfig, given: Sound | None) -> bool:
    return config.num_samples == 1 and config.duration + _given_seconds(given) > STREAMED_SECONDS


def _given_seconds(given: Sound | None) -> float:
    return 0.0 if given is None else given.seconds


def _stream_files(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    folder: Path,
    paths: Mapping[str, str],
    given: FileSound | None,
    progress: Progress,
) -> Iterator[Written]:
    """One sample of each prompt, written to a file while it is generated."""
    config = model.generation_config
    for session in model.sessions(requests_of(prompts, 1), config, given, progress):
        with ExitStack() as stack:
            names = [_name(request.prompt, config, 1, given) for request in session.requests]
            spools = [
                stack.enter_context(SpooledWave(temporary_path(folder / f"{place}.{name}")))
                for place, name in enumerate(names)
            ]
            for chunk in session.stream(given):
                for spool, wave in zip(spools, chunk.cpu(), strict=True):
                    spool.append(wave)
            for request, name, spool in zip(session.requests, names, spools, strict=True):
                similarity = _similarity(model, request.prompt, spool, config)
                scores, facts = {ClapScorer.name: similarity}, _continuation(given)
                provenance = Provenance(request.prompt, 0, scores, config, paths, facts)
                path = write_generated(folder, name, spool, model.sample_hz, provenance)
                yield Written(Candidate(request.prompt, 0, torch.zeros(0), similarity), path)


def _similarity(model: MusicLM, prompt: AnyPrompt, spool: SpooledWave, config: GenerationConfig) -> float:
    """The score of `ClapScorer`, for the new music only."""
    new = samples_of(config.duration, model.sample_hz)
    wave = model.embedder.embed_segment(spool.segment, len(spool) - new, len(spool))
    return float(wave @ model.embed_prompts([during(prompt, 0, config.duration)])[0])


def _continuation(given: FileSound | None) -> dict[str, object]:
    """What a JSON has about the sound that is continued, if there is one."""
    return {} if given is None else {CONTINUATION_OF: str(given.path), "given_seconds": given.seconds}


def _name(prompt: AnyPrompt, config: GenerationConfig, rank: int, given: FileSound | None) -> str:
    before = [] if given is None else [*slugs_of_files([given.path]), "continuation"]
    return "_".join([*before, slug(str(prompt)), f"seed{config.seed}", str(rank)])
