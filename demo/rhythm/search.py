"""Search that knows rhythm: semantic candidates, particles made of the best of them, and a ranking by CLAP and rhythm.

Semantic tokens tell the rhythm before there is any sound, and take a small part of the time of coarse tokens. So many
candidates of each sample are made, and the particles of core's search start from those whose rhythm fits the prompt
best. Particles are compared by CLAP alone, finished samples by both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.rhythm.combined import ClapRhythmScorer
from open_musiclm import audio
from open_musiclm.audio import Sound, read_sound
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.files import prepare_folder
from open_musiclm.generation.inference import Written, check_ranked_length, write_candidates
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.progress import Progress, stage_progress
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.generation.search import Candidate, Search, resample, surviving
from open_musiclm.generation.session import Request, batches_of, requests_of
from open_musiclm.generation.story import AnyPrompt, during


@dataclass(frozen=True)
class RhythmCandidate(Candidate):
    """`score` is CLAP's similarity; `rhythm` is in nats, None where it was not measured."""

    rhythm: float | None

    def __str__(self) -> str:
        return f"similarity {self.score:.3f}" + ("" if self.rhythm is None else f", rhythm {self.rhythm:+.2f}")


def best_of_n(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    scorer: ClapRhythmScorer,
    num_semantic_candidates: int | None = None,
    audio_prompt: Sound | None = None,
    progress: Progress | None = None,
) -> Iterator[list[RhythmCandidate]]:
    """`num_samples` of each prompt, as the model's generation config says, those that `scorer` finds best first.

    With semantic candidates, and music long enough to measure its rhythm, the particles start from the best of them.
    Yields the samples of each prompt as soon as all of them are there. Raises UserError.
    """
    config = model.generation_config
    search = Search(model, ClapScorer(model), config, audio_prompt, progress)
    if num_semantic_candidates is not None:
        _check(num_semantic_candidates, scorer, config)
    if num_semantic_candidates is not None and scorer.measures_rhythm(config.duration):
        batches = _search_from_candidates(search, prompts, scorer, num_semantic_candidates)
    elif config.num_particles is None:
        batches = search.sampled(prompts)
    else:
        batches = search.particles(prompts)
    return ranked(model, prompts, batches, scorer)


def generate_files(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    results_folder: Path,
    paths: Mapping[str, str],
    input_audio: Path | None,
    scorer: ClapRhythmScorer,
    num_semantic_candidates: int | None,
) -> Iterator[list[Written]]:
    """Writes the `num_top_matches` best of `best_of_n` of each prompt as core does, with their similarity in the JSON.

    Yields those of each prompt as soon as they are written. Raises UserError.
    """
    check_ranked_length(model.generation_config, len(prompts))
    prepare_folder(results_folder)
    audio_prompt = read_sound(input_audio) if input_audio else None
    with stage_progress() as progress:
        for own in best_of_n(model, prompts, scorer, num_semantic_candidates, audio_prompt, progress):
            yield write_candidates(model, own, ClapScorer.name, results_folder, paths)


def choose_semantic(
    model: MusicLM,
    samples: Sequence[Request],
    num_candidates: int,
    scorer: ClapRhythmScorer,
    audio_prompt: Sound | None = None,
    progress: Progress | None = None,
) -> Int[Tensor, "particles time 1"]:
    """Semantic tokens for the `num_particles` particles of each sample: the best of its `num_candidates` candidates.

    There are as many different ones as particles that survive a window.
    """
    config = model.generation_config
    particles, at_once = config.num_particles or 1, config.max_batch_size // num_candidates
    chosen: list[Tensor] = []
    for batch in batches_of(samples, at_once):
        session = model.session(numbered(batch, num_candidates), config, progress)
        prompt = session.prompt_tokens(audio_prompt)
        semantic = session.semantic_tokens(prompt)
        new = semantic[:, session.grid.first_frame(session.streams["semantic"], prompt.ticks) :, 0]
        asked = [during(request.prompt, 0, config.duration) for request in session.requests]
        scores = scorer.score_semantic(asked, new)
        by_sample = scores.cpu().unflatten(0, (-1, num_candidates))
        chosen.append(semantic[resample(by_sample, min(surviving(particles), num_candidates), particles)])
    return torch.cat(chosen)


def ranked(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    batches: Iterable[Float[Tensor, "batch samples"]],
    scorer: ClapRhythmScorer,
) -> Iterator[list[RhythmCandidate]]:
    """`num_samples` waves of each prompt in turn as candidates, the best first; only the new music is scored."""
    config = model.generation_config
    requests = iter(requests_of(prompts, config.num_samples))
    new = audio.samples_of(config.duration, model.sample_hz)
    waiting: list[tuple[float, RhythmCandidate]] = []
    for batch in batches:
        own = list(islice(requests, len(batch)))
        ratings = scorer.rate([during(request.prompt, 0, config.duration) for request in own], batch[:, -new:])
        rhythms = [None] * len(batch) if ratings.rhythm is None else ratings.rhythm.tolist()
        candidates = [
            RhythmCandidate(request.prompt, request.number, wave, similarity, rhythm)
            for request, wave, similarity, rhythm in zip(own, batch, ratings.similarity.tolist(), rhythms, strict=True)
        ]
        waiting += zip(scorer.combined(ratings).tolist(), candidates, strict=True)
        while len(waiting) >= config.num_samples:
            done, waiting = waiting[: config.num_samples], waiting[config.num_samples :]
            yield [candidate for _, candidate in sorted(done, key=lambda pair: -pair[0])]


def numbered(samples: Sequence[Request], count: int) -> list[Request]:
    """`count` requests in the place of each sample, with numbers of their own."""
    return [Request(sample.prompt, sample.number * count + number) for sample in samples for number in range(count)]


def _search_from_candidates(
    search: Search, prompts: Sequence[AnyPrompt], scorer: ClapRhythmScorer, num_candidates: int
) -> Iterator[Float[Tensor, "batch samples"]]:
    """Core's particle search with semantic tokens chosen beforehand."""
    config = search.config
    particles = config.num_particles or 1
    samples, at_once = requests_of(prompts, config.num_samples), config.max_batch_size // particles
    for batch in batches_of(samples, at_once):
        semantic = choose_semantic(search.model, batch, num_candidates, scorer, search.audio_prompt, search.progress)
        yield search.survivors(numbered(batch, particles), semantic)


def _check(num_candidates: int, scorer: ClapRhythmScorer, config: GenerationConfig) -> None:
    if config.num_particles is None or not 1 <= num_candidates <= config.max_batch_size:
        raise UserError(
            f"--num_semantic_candidates {num_candidates}: needs --num_particles, and a --max_batch_size of at least "
            f"{num_candidates}, for the candidates of a sample are compared within one batch"
        )
    if scorer.rhythm is None:
        raise UserError("--num_semantic_candidates: needs a rhythm scorer; give --rhythm_scorer_path")
