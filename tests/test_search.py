"""Particle search and best of n: which particles survive, and what is left of them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from helpers.small_stack import Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from test_musiclm import HZ, PROMPT, tune

from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.generation.search import best_of_n, particle_search, resample, run_particles
from open_musiclm.generation.session import GenerationSession, requests_of

PROMPTS = [PROMPT, "fast violin"]
PARTICLES = 4
COARSE = GenerationConfig(return_coarse_wave=True)


class FixedScorer:
    """Scores by a function of the waves, and counts how often it is asked."""

    name = "fixed"

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.function, self.asked = score, list[int]()

    def score(self, prompts: Sequence[str], waves: torch.Tensor) -> torch.Tensor:
        assert len(prompts) == len(waves)
        self.asked.append(len(waves))
        return self.function(waves)


@pytest.fixture(scope="module")
def musiclm(stack: Stack) -> MusicLM:
    return stack.musiclm()


@given(st.integers(1, 4), st.integers(1, 12), st.data())
@settings(deadline=None)
def test_the_best_of_each_prompt_survive(prompts: int, particles: int, data: st.DataObject) -> None:
    surviving = data.draw(st.integers(1, particles))
    wanted = data.draw(st.integers(surviving, 2 * particles))
    ranks = torch.tensor([data.draw(st.permutations(range(particles))) for _ in range(prompts)])
    indices = resample(ranks.float(), surviving, wanted).unflatten(0, (prompts, wanted))
    for prompt in range(prompts):
        places = indices[prompt] - prompt * particles
        best = sorted(range(particles), key=lambda particle: -int(ranks[prompt, particle]))[:surviving]
        assert places.tolist() == [best[place % surviving] for place in range(wanted)]


def test_one_particle_is_the_sample(musiclm: MusicLM) -> None:
    """As long as one semantic window holds it: later windows have more context than those of plain generation."""
    config = GenerationConfig(num_samples=2, num_particles=1, duration=1.9)
    waves = particle_search(musiclm, PROMPTS, ClapScorer(musiclm), config)
    expected = musiclm.generate(PROMPTS, 1.9, num_samples=2)
    assert_same(waves, expected)
    assert_different(waves[0], waves[1])


def test_the_particle_that_is_always_best_is_as_if_it_were_alone(musiclm: MusicLM) -> None:
    scores = torch.tensor([0.0, 1.0, 3.0, 2.0, 3.0, 0.0, 1.0, 2.0])  # of each prompt's four
    left, tokens = searched(musiclm, lambda last: scores)
    assert left == [2, 4]
    assert torch.equal(tokens, undisturbed(musiclm)[left])


def test_a_late_winner_continues_an_early_one(musiclm: MusicLM) -> None:
    early, late = torch.tensor([1.0, 0.0, 0.0, 0.0] * 2), torch.tensor([0.0, 0.0, 0.0, 1.0] * 2)
    left, tokens = searched(musiclm, lambda last: late if last else early)
    assert left == [3, 7]
    alone, half = undisturbed(musiclm), tokens.shape[1] // 2
    assert torch.equal(tokens[:, :half], alone[[0, 4], :half])
    assert not torch.equal(tokens, alone[[0, 4]])
    assert not torch.equal(tokens[:, :half], alone[left, :half])


def test_particles_start_from_the_semantic_tokens_they_are_given(musiclm: MusicLM) -> None:
    """Given the semantic tokens that they would have made they make the same coarse ones."""
    session = some_particles(musiclm)
    prompt = session.prompt_tokens(None)
    semantic = session.particle_tracks(prompt, None)[0].tokens(0, session.new_ticks)
    scores = torch.tensor([0.0, 1.0, 3.0, 2.0, 3.0, 0.0, 1.0, 2.0])
    left, tokens = searched(musiclm, lambda last: scores, semantic)
    assert left == [2, 4]
    assert torch.equal(tokens, undisturbed(musiclm)[left])
    _, others = searched(musiclm, lambda last: scores, semantic.roll(1, 0))
    assert not torch.equal(others, tokens)


def searched(
    musiclm: MusicLM, score: Callable[[bool], torch.Tensor], semantic: torch.Tensor | None = None
) -> tuple[list[int], torch.Tensor]:
    """The particles that are left, and their coarse tokens; the scores by whether a window is the last."""
    session = some_particles(musiclm)
    prompt = session.prompt_tokens(None)
    windows = len(session.particle_tracks(prompt, None)[1].window_ends())
    scorer = FixedScorer(lambda waves: score(len(scorer.asked) == windows))
    left, coarse = run_particles(session, prompt, PARTICLES, scorer, semantic)
    assert scorer.asked == [len(session.requests)] * windows
    return left, coarse.tokens(0, session.new_ticks)


def undisturbed(musiclm: MusicLM) -> torch.Tensor:
    """The coarse tokens of all particles where none takes another's place."""
    session = some_particles(musiclm)
    return session.particle_tracks(session.prompt_tokens(None), None)[1].tokens(0, session.new_ticks)


def some_particles(musiclm: MusicLM) -> GenerationSession:
    return musiclm.session(requests_of(PROMPTS, PARTICLES), GenerationConfig(duration=2.48))


def test_of_a_single_window_the_best_is_left(musiclm: MusicLM) -> None:
    scorer = FixedScorer(lambda waves: waves.double().mean(dim=1))
    samples = musiclm.generate(PROMPTS, 1.0, PARTICLES, COARSE)
    config = COARSE.updated({"duration": 1.0, "num_samples": 1, "num_particles": PARTICLES})
    waves = particle_search(musiclm, PROMPTS, scorer, config)
    for place in range(len(PROMPTS)):
        own = samples[PARTICLES * place : PARTICLES * (place + 1)]
        best, second, *_ = sorted(own, key=lambda wave: float(wave.double().mean()), reverse=True)
        assert_same([waves[place]], [best])
        assert_different(waves[place], second)


def test_samples_are_searched_for_apart(musiclm: MusicLM) -> None:
    config = COARSE.updated({"duration": 1.5, "num_samples": 2, "num_particles": 2})
    scorer = ClapScorer(musiclm)
    at_once = particle_search(musiclm, PROMPTS, scorer, config.updated({"max_batch_size": 8}))
    in_batches = particle_search(musiclm, PROMPTS, scorer, config.updated({"max_batch_size": 3}))
    assert_same(at_once, in_batches)
    assert_different(at_once[0], at_once[1])


def test_best_of_n_ranks_the_samples_of_each_prompt(musiclm: MusicLM) -> None:
    scorer = FixedScorer(lambda waves: waves.double().mean(dim=1))
    config = COARSE.updated({"duration": 1.0, "num_samples": 3, "max_batch_size": 4})
    ranked = best_of_n(musiclm, PROMPTS, scorer, config)
    samples = musiclm.generate(PROMPTS, 1.0, 3, config)
    assert [candidate.prompt for own in ranked for candidate in own] == [PROMPT] * 3 + ["fast violin"] * 3
    for place, own in enumerate(ranked):
        assert [candidate.score for candidate in own] == sorted((c.score for c in own), reverse=True)
        assert sorted(candidate.number for candidate in own) == [0, 1, 2]
        for candidate in own:
            assert_same([candidate.wave], [samples[3 * place + candidate.number]])
    assert scorer.asked == [4, 2]  # in batches, not one by one


def test_only_new_music_is_scored(musiclm: MusicLM) -> None:
    lengths: list[int] = []
    scorer = FixedScorer(lambda waves: lengths.append(waves.shape[1]) or torch.zeros(len(waves)))
    best_of_n(musiclm, [PROMPT], scorer, COARSE.updated({"duration": 0.8, "num_samples": 1}), tune(1.7))
    assert lengths == [round(0.8 * HZ)]


def test_particles_go_on_from_an_audio_prompt(musiclm: MusicLM) -> None:
    sound, seconds = tune(1.7), 1.3
    config = GenerationConfig(duration=seconds, num_samples=2, num_particles=2)
    waves = particle_search(musiclm, [PROMPT], ClapScorer(musiclm), config, sound)
    plain = musiclm.generate(PROMPT, seconds, audio_prompt=sound)[0]
    before = len(plain) - round(seconds * HZ)
    for wave in waves:
        assert wave.shape == plain.shape
        assert torch.equal(wave[:before], plain[:before])
    assert not torch.equal(waves[0][before:], waves[1][before:])


@pytest.mark.parametrize("particles", [0, 17])
def test_particles_that_do_not_fit_are_refused(particles: int) -> None:
    with pytest.raises(UserError, match="num_particles"):
        GenerationConfig().updated({"num_particles": particles})


def assert_same(waves: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    for left, right in zip(waves, others, strict=True):
        torch.testing.assert_close(left, right, atol=2e-6, rtol=0)


def assert_different(wave: torch.Tensor, other: torch.Tensor) -> None:
    """Waves of other tokens: this codec's random weights tell them apart by little, but by more than rounding."""
    assert (wave - other).abs().max() > 2e-5
