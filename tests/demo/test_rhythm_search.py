"""Search by rhythm: semantic candidates, particles that start from the best of them, and the ranking."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.small_stack import CPU, Stack
from test_musiclm import HZ, PROMPT, tune

from demo import generate
from demo.defaults import NUM_SEMANTIC_CANDIDATES, RHYTHM_SCORER
from demo.rhythm.arguments import num_semantic_candidates, rhythm_scorer_path
from demo.rhythm.combined import ClapRhythmScorer, Ratings
from demo.rhythm.scorer import FILE_NAME, RhythmScorer
from demo.rhythm.search import best_of_n, choose_semantic, ranked
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.session import requests_of

FRAME_HZ = 50
PROMPTS = [PROMPT, "fast violin"]


class FixedScorer(ClapRhythmScorer):
    """Scores semantic tokens by given numbers, and keeps the tokens."""

    def __init__(self, model: MusicLM, scores: Sequence[float]) -> None:
        super().__init__(model, random_scorer(model))
        self.scores, self.asked = torch.tensor(scores), list[torch.Tensor]()

    def score_semantic(self, prompts: Sequence[str], semantic: torch.Tensor) -> torch.Tensor:
        self.asked.append(semantic)
        return self.scores[: len(semantic)]


def random_scorer(model: MusicLM) -> RhythmScorer:
    """A scorer that fits the model's backbones, with random directions."""
    tokenizer = model.tokenizer
    scorer = RhythmScorer(FRAME_HZ, tokenizer.semantic.mert.feature_dim, tokenizer.clap.embedding_dim, 2)
    generator = torch.Generator().manual_seed(0)
    for buffer in (scorer.direction, scorer.rhythm_directions, scorer.text_directions):
        buffer.copy_(torch.randn(buffer.shape, generator=generator))
    scorer.rhythm_spread.fill_(1.0)
    scorer.correlations.fill_(0.5)
    return scorer


def model_with(stack: Stack, config: GenerationConfig) -> MusicLM:
    return MusicLM(stack.config, stack.stages(("semantic", "coarse")), stack.tokenizer(), config)


def coarse_config(**fields: object) -> GenerationConfig:
    return GenerationConfig.model_validate({"return_coarse_wave": True, **fields})


def test_particles_start_from_the_best_candidates(stack: Stack) -> None:
    scores = [0.0, 3.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0]  # of each prompt's four
    samples = requests_of(PROMPTS, 1)
    model = model_with(stack, coarse_config(duration=2.48, num_samples=1, num_particles=2))
    session = model.session(requests_of(PROMPTS, 4), model.generation_config)
    whole = session.semantic_tokens(session.prompt_tokens(None))
    scorer = FixedScorer(model, scores)
    assert torch.equal(choose_semantic(model, samples, 4, scorer), whole[[1, 1, 7, 7]])
    assert torch.equal(scorer.asked[0], whole[..., 0])
    six = model_with(stack, coarse_config(duration=2.48, num_samples=1, num_particles=6))
    assert torch.equal(choose_semantic(six, samples, 4, scorer), whole[[1, 3, 1, 3, 1, 3, 7, 6, 7, 6, 7, 6]])


def test_only_new_music_is_scored(stack: Stack) -> None:
    model = model_with(stack, coarse_config(duration=1.2, num_samples=1, num_particles=1))
    scorer = FixedScorer(model, [0.0, 1.0])
    chosen = choose_semantic(model, requests_of(PROMPT, 1), 2, scorer, tune(1.7))
    assert chosen.shape[1] > scorer.asked[0].shape[1]
    assert torch.equal(chosen[0, -scorer.asked[0].shape[1] :, 0], scorer.asked[0][1])


def test_candidates_are_made_of_music_that_lasts(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples of two particles, at most nine requests at a time; 3 s are too short to measure rhythm."""
    shapes: list[tuple[int, ...]] = []
    score = ClapRhythmScorer.score_semantic

    def counted(scorer: ClapRhythmScorer, prompts: Sequence[str], semantic: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(semantic.shape))
        return score(scorer, prompts, semantic)

    monkeypatch.setattr(ClapRhythmScorer, "score_semantic", counted)
    for seconds in (3.0, 5.0):
        config = coarse_config(duration=seconds, num_samples=3, num_particles=2, max_batch_size=9)
        model = model_with(stack, config)
        (candidates,) = best_of_n(model, [PROMPT], ClapRhythmScorer(model, random_scorer(model)), 4)
        assert [len(candidate.wave) for candidate in candidates] == [seconds * model.sample_hz] * 3
        assert all((candidate.rhythm is not None) == (seconds > 4) for candidate in candidates)
    assert shapes == [(8, 5 * FRAME_HZ - 1), (4, 5 * FRAME_HZ - 1)]


def test_candidates_follow_an_audio_prompt(stack: Stack) -> None:
    model = model_with(stack, coarse_config(duration=4.2, num_samples=2, num_particles=2, max_batch_size=4))
    sound = tune(1.7)
    (candidates,) = best_of_n(model, [PROMPT], ClapRhythmScorer(model, random_scorer(model)), 3, sound)
    waves = [candidate.wave for candidate in candidates]
    before = len(waves[0]) - round(4.2 * HZ)
    assert before == round(1.7 * HZ)
    assert torch.equal(waves[0][:before], waves[1][:before])
    assert not torch.equal(waves[0], waves[1])


@pytest.mark.parametrize(("count", "fields"), [(10, {"num_particles": 2}), (2, {})])
def test_candidates_that_do_not_fit_are_refused(stack: Stack, count: int, fields: dict) -> None:
    model = model_with(stack, coarse_config(duration=5.0, num_samples=1, max_batch_size=9, **fields))
    with pytest.raises(UserError, match=f"num_semantic_candidates {count}: needs --num_particles"):
        best_of_n(model, [PROMPT], ClapRhythmScorer(model, random_scorer(model)), count)


def test_the_best_of_both_scores_comes_first_not_the_most_similar(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with(stack, coarse_config(duration=1.0, num_samples=3))
    scale = model.tokenizer.clap.scale
    ratings = Ratings(torch.tensor([0.9, 0.2, 0.4]), scale * torch.tensor([-0.8, 0.1, -0.2]))
    monkeypatch.setattr(ClapRhythmScorer, "rate", lambda scorer, prompts, waves: ratings)
    batches = [torch.zeros(3, round(1.0 * HZ))]
    (candidates,) = ranked(model, [PROMPT], batches, ClapRhythmScorer(model, None))
    assert [candidate.number for candidate in candidates] == [1, 2, 0]
    assert candidates[0].score == pytest.approx(0.2)
    assert str(candidates[0]) == f"similarity 0.200, rhythm {0.1 * scale:+.2f}"


def top_match(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = REPOSITORY / "scripts" / "infer_top_match.py"
    return forks.run([script, PROMPT, *stack.arguments(), *arguments, "--device", "cpu"])


@pytest.mark.parametrize(
    "flags",
    [
        ("--num_drafts", "--num_sketches", "--ear_path"),
        ("--num_particles", "--num_semantic_candidates", "--rhythm_scorer_path"),
    ],
)
def test_earlier_and_present_flags_of_infer_top_match(stack: Stack, tmp_path: Path, flags: tuple[str, ...]) -> None:
    model = stack.musiclm(())
    random_scorer(model).save(tmp_path / FILE_NAME)
    values = ("2", "3", str(tmp_path))
    words = [word for pair in zip(flags, values, strict=True) for word in pair]
    done = top_match(
        stack, *words, "--duration", "4.5", "--num_samples", "1", "--return_coarse_wave",
        "--results_folder", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rhythm" in done.stdout
    (described,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json"))
    assert -1 <= described["similarity"] <= 1
    assert "rhythm" not in json.dumps([list(described), list(described["settings"])])


def test_the_demo_bundle_brings_its_scorer_and_its_number_of_candidates() -> None:
    parse = generate.arguments().parse_args
    own = parse(["a tune"])
    assert (rhythm_scorer_path(own), num_semantic_candidates(own)) == (RHYTHM_SCORER, NUM_SEMANTIC_CANDIDATES)
    other = parse(["a tune", "--checkpoint_dir", "elsewhere"])
    assert (rhythm_scorer_path(other), num_semantic_candidates(other)) == (None, None)
    given = parse(["a tune", "--ear_path", "other.safetensors", "--num_sketches", "3"])
    assert (rhythm_scorer_path(given), num_semantic_candidates(given)) == (Path("other.safetensors"), 3)


def test_candidates_without_a_scorer_are_refused(stack: Stack) -> None:
    refused = top_match(stack, "--num_drafts", "2", "--num_sketches", "3")
    assert refused.returncode == 2
    assert "needs a rhythm scorer; give --rhythm_scorer_path" in refused.stderr


def test_the_scorer_loads_where_its_sizes_fit(stack: Stack, tmp_path: Path) -> None:
    model = stack.musiclm(())
    random_scorer(model).save(tmp_path / FILE_NAME)
    loaded = RhythmScorer.load(tmp_path, stack.config, CPU)
    assert torch.equal(loaded.direction, random_scorer(model).direction)
