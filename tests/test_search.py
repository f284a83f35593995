"""Best of n: the samples of each prompt, ranked by a scorer."""

from collections.abc import Callable, Sequence

import pytest
import torch
from helpers.small_stack import Stack
from test_musiclm import HZ, PROMPT, tune

from open_musiclm.config import GenerationConfig
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.search import best_of_n

PROMPTS = [PROMPT, "fast violin"]
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


def assert_same(waves: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    for left, right in zip(waves, others, strict=True):
        torch.testing.assert_close(left, right, atol=2e-6, rtol=0)
