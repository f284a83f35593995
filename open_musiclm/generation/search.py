"""Search over generation: the best of n samples, by a `Scorer`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import GenerationConfig
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.prompts.story import AnyPrompt, during
from open_musiclm.generation.scorers import Scorer
from open_musiclm.generation.session import requests_of


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


def best_of_each(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    scorer: Scorer,
    config: GenerationConfig | None = None,
    audio_prompt: Sound | None = None,
    progress: Progress | None = None,
) -> Iterator[list[Candidate]]:
    """`config.num_samples` samples of each prompt in turn, the best first; only the new music is scored.

    Yields the samples of a prompt as soon as all of them are generated. Raises UserError.
    """
    config = config or model.generation_config
    requests = requests_of(prompts, config.num_samples)
    new = audio.samples_of(config.duration, model.sample_hz)
    waiting: list[Candidate] = []
    for session in model.sessions(requests, config, audio_prompt, progress):
        waves = session.waves(audio_prompt)  # of which a candidate gets a copy, or it would keep all
        steady = [during(request.prompt, 0, config.duration) for request in session.requests]
        scores = scorer.score(steady, waves[:, -new:]).tolist()
        waiting += [
            Candidate(
                request.prompt, request.number, wave.clone(), score, score_name=scorer.name
            )  # not all of the batch
            for request, wave, score in zip(session.requests, waves, scores, strict=True)
        ]
        while len(waiting) >= config.num_samples:
            done, waiting = waiting[: config.num_samples], waiting[config.num_samples :]
            yield sorted(done, key=lambda candidate: -candidate.score)


def best_of_n(
    model: MusicLM,
    prompts: Sequence[AnyPrompt],
    scorer: Scorer,
    config: GenerationConfig | None = None,
    audio_prompt: Sound | None = None,
) -> list[list[Candidate]]:
    """All of `best_of_each`."""
    return list(best_of_each(model, prompts, scorer, config, audio_prompt))
