"""What is measured of a correction of text embeddings: pairs of the same random numbers, and known answers."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers.small_stack import Stack

from demo.classifier import PromptClassifier
from demo.correction_measures import KINDS, changed_prompts, generate_pairs, measure_pairs
from demo.prompts import ControlPrompt, control_prompts
from open_musiclm import GenerationConfig, MusicLM
from open_musiclm.tokenizers.text_correction import TextCorrection

PROMPTS = control_prompts(9, seed=0)


@pytest.fixture
def model(stack: Stack) -> MusicLM:
    model = stack.musiclm()
    model.generation_config = GenerationConfig(duration=0.4, return_coarse_wave=True)
    return model


def test_pairs_differ_by_the_correction_alone(model: MusicLM, tmp_path: Path) -> None:
    dim = model.tokenizer.clap.embedding_dim
    nothing = TextCorrection(torch.eye(dim), torch.zeros(dim))
    away = TextCorrection(torch.eye(dim), -3 * model.embed_text([PROMPTS[0].text])[0])
    assert changed_prompts(model, nothing, PROMPTS) == []
    assert PROMPTS[0] in changed_prompts(model, away, PROMPTS)
    made = generate_pairs(model, nothing, PROMPTS[:2], 2, tmp_path / "nothing")
    assert [len(made[kind]) for kind in KINDS] == [2, 2]
    for plain, corrected in zip(made["plain"], made["corrected"], strict=True):
        torch.testing.assert_close(torch.stack(plain), torch.stack(corrected))
        assert not torch.equal(plain[0], plain[1])
    first = generate_pairs(model, away, PROMPTS[:1], 1, tmp_path / "away")
    assert not torch.equal(first["plain"][0][0], first["corrected"][0][0])
    model.stages.clear()  # nothing can be made any more
    again = generate_pairs(model, away, PROMPTS[:1], 1, tmp_path / "away")
    assert torch.equal(again["corrected"][0][0], first["corrected"][0][0])


class KnownAnswers(PromptClassifier):
    """A wave holds the number of the prompt whose family it has, and of the one whose tempo."""

    def families(self, waves: Sequence[torch.Tensor]) -> list[str]:
        return [PROMPTS[int(wave[0])].family for wave in waves]

    def tempi(self, waves: Sequence[torch.Tensor]) -> list[str]:
        return [PROMPTS[int(wave[1])].tempo for wave in waves]


def test_shares_and_their_difference() -> None:
    """Families in turn are all different, tempi of the first nine prompts are one."""
    own = [[torch.tensor([number, number]).float()] * 2 for number in range(4)]
    half = [[torch.tensor([number + place, number]).float() for place in range(2)] for number in range(4)]
    prompts: list[ControlPrompt] = PROMPTS[:4]
    report = measure_pairs(KnownAnswers(), prompts, {"plain": half, "corrected": own})
    assert report["family"] == {"without": 0.5, "with": 1.0, "difference": 0.5, "low": 0.5, "high": 0.5}
    assert report["tempo"]["difference"] == 0
    assert report["both"]["with"] == 1.0
    mixed = measure_pairs(KnownAnswers(), prompts, {"plain": half, "corrected": own[:2] + half[2:]})
    assert mixed["both"]["low"] == 0 < mixed["both"]["difference"] == 0.25 < mixed["both"]["high"] == 0.5
