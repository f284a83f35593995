"""Search over generation: best of n, and particle search. Both take a `Scorer`.

Particle search is a particle filter with a score in the place of the likelihood. A stage that departs from its
condition tends to go on doing so, because its own history weighs more than the condition. After each coarse window the
particles of a sample that score best replace all of them, each with its own random numbers from then on. At the end the
best one is left, and only that one gets fine tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import GenerationConfig
from open_musiclm.generation.audio_prompt import PromptTokens
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.scorers import Scorer
from open_musiclm.generation.session import GenerationSession, Request, batches_of, requests_of
from open_musiclm.generation.story import AnyPrompt, during
from open_musiclm.generation.tracks import GeneratedTrack

SURVIVING_SHARE = 1 / 4


@dataclass(frozen=True)
class Candidate:
    """One sample of a prompt, and its score by the scorer of that name."""

    prompt: AnyPrompt
    number: int
    wave: Float[Tensor, "samples"]
    score: float
    score_name: str = field(default="similarity", kw_only=True)

    def __str__(self) -> str:
        return f"{self.score_name} {self.score:.3f}"


@dataclass(frozen=True)
class Search:
    """A model, a scorer and what a generation is asked for; `config` says how much is searched."""

    model: MusicLM
    scorer: Scorer
    config: GenerationConfig
    audio_prompt: Sound | None = None
    progress: Progress | None = None

    def best_of_each(self, prompts: Sequence[AnyPrompt]) -> Iterator[list[Candidate]]:
        """As `best_of_n`, but yields the samples of each prompt as soon as all of them are there."""
        batches = self.sampled(prompts) if self.config.num_particles is None else self.particles(prompts)
        return self._ranked(prompts, batches)

    def sampled(self, prompts: Sequence[AnyPrompt]) -> Iterator[Float[Tensor, "batch samples"]]:
        """`config.num_samples` waves of each prompt in turn, batch by batch, none of them searched for."""
        requests = requests_of(prompts, self.config.num_samples)
        sessions = self.model.sessions(requests, self.config, self.audio_prompt, self.progress)
        return (session.waves(self.audio_prompt) for session in sessions)

    def particles(self, prompts: Sequence[AnyPrompt]) -> Iterator[Float[Tensor, "batch samples"]]:
        """As `particle_search`, batch by batch."""
        particles = self.config.num_particles or 1
        requests = requests_of(prompts, self.config.num_samples * particles)
        at_once = self.config.max_batch_size // particles * particles
        for batch in batches_of(requests, at_once):
            yield self.survivors(batch)

    def survivors(
        self, requests: Sequence[Request], semantic: Int[Tensor, "batch time 1"] | None = None
    ) -> Float[Tensor, "survivors samples"]:
        """One batch of particles: the wave of the one that is left of every `num_particles` requests.

        The particles start from `semantic` tokens, or make their own.
        """
        session = self.model.session(requests, self.config, self.progress)
        given = session.prompt_tokens(self.audio_prompt)
        left, coarse = run_particles(session, given, self.config.num_particles or 1, self.scorer, semantic)
        winners = self.model.session([session.requests[index] for index in left], self.config, self.progress)
        return torch.cat(list(winners.finish(coarse, given, self.audio_prompt)), dim=1).cpu()

    def _ranked(
        self, prompts: Sequence[AnyPrompt], batches: Iterable[Float[Tensor, "batch samples"]]
    ) -> Iterator[list[Candidate]]:
        """`config.num_samples` waves of each prompt in turn, as candidates, those that score best first."""
        requests = iter(requests_of(prompts, self.config.num_samples))
        new = audio.samples_of(self.config.duration, self.model.sample_hz)
        waiting: list[Candidate] = []
        for batch in batches:
            own = list(islice(requests, len(batch)))
            asked = [during(request.prompt, 0, self.config.duration) for request in own]
            scores = self.scorer.score(asked, batch[:, -new:]).tolist()
            waiting += [
                Candidate(request.prompt, request.number, wave, score, score_name=self.scorer.name)
                for request, wave, score in zip(own, batch, scores, strict=True)
            ]
            while len(waiting) >= self.config.num_samples:
                done, waiting = waiting[: self.config.num_samples], waiting[self.config.num_samples :]
                yield sorted(done, key=lambda candidate: -candidate.score)


def best_of_n(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    scorer: Scorer,
    config: GenerationConfig | None = None,
    audio_prompt: Sound | None = None,
) -> list[list[Candidate]]:
    """`config.num_samples` samples of each prompt, those that score best first; scored is the new music only.

    With `config.num_particles` each sample is the outcome of a particle search. Raises UserError.
    """
    return list(Search(model, scorer, config or model.generation_config, audio_prompt).best_of_each(prompts))


def particle_search(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    scorer: Scorer,
    config: GenerationConfig | None = None,
    audio_prompt: Sound | None = None,
) -> list[Float[Tensor, "samples"]]:
    """`config.num_samples` waves of each prompt in turn, each the best of `config.num_particles` particles.

    Raises UserError.
    """
    batches = Search(model, scorer, config or model.generation_config, audio_prompt).particles(prompts)
    return [wave for batch in batches for wave in batch]


def run_particles(
    session: GenerationSession,
    given: PromptTokens,
    num_particles: int,
    scorer: Scorer,
    semantic: Int[Tensor, "batch time 1"] | None = None,
) -> tuple[list[int], GeneratedTrack]:
    """One batch: the index of the particle that is left of every `num_particles` requests, and their coarse tokens.

    The particles start from `semantic` tokens, or make their own. Scored is the new music so far, as much of it as
    CLAP's window holds.
    """
    semantic_track, coarse = session.particle_tracks(given, semantic)
    window = session.grid.ticks(session.model_config.global_cfg.clap_audio_length_seconds)

    def scores(end: int) -> Float[Tensor, "samples particles"]:
        start = max(given.ticks, end - window)
        wave = session.decode([coarse], start, end, end)
        heard = [float(session.grid.seconds(tick - given.ticks)) for tick in (start, end)]
        prompts = [during(request.prompt, *heard) for request in session.requests]
        return scorer.score(prompts, wave).cpu().unflatten(0, (-1, num_particles))

    *earlier, last = coarse.window_ends()
    for end in earlier:
        chosen = resample(scores(end), surviving(num_particles), num_particles)
        semantic_track.select(chosen)
        coarse.select(chosen)
    winners = resample(scores(last), 1, 1)
    coarse.select(winners)
    return winners.tolist(), coarse


def surviving(num_particles: int) -> int:
    """How many of so many particles survive a window."""
    return max(round(num_particles * SURVIVING_SHARE), 1)


def resample(scores: Float[Tensor, "groups particles"], best: int, wanted: int) -> Int[Tensor, "indices"]:
    """The indices of the `best` particles of every group, repeated in turn until each group has `wanted`."""
    groups, particles = scores.shape
    places = scores.topk(best, dim=1).indices
    repeated = places.repeat(1, -(-wanted // best))[:, :wanted]
    return (repeated + particles * torch.arange(groups)[:, None]).flatten()
