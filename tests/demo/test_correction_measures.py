"""What is measured of a correction of text embeddings: pairs of the same random numbers, and known answers."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers.small_stack import Stack

from demo.classifier import PromptClassifier
from demo.correction_measures import KINDS, changed_prompts, generate_pairs, measure_pairs
from demo.prompts import ControlPrompt, control_prompts
from open_musiclm import MusicLM
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.text_correction import TextCorrection

PROMPTS = control_prompts(9, seed=0)


@pytest.fixture
def model(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> MusicLM:
    """A model whose waves say which CLAP tokens it was given."""
    model = stack.musiclm()

    def generate(texts: Sequence[str], num_samples: int) -> list[torch.Tensor]:
        tokens = model.clap_tokens(texts).flatten(1).repeat_interleave(num_samples, dim=0)
        return [torch.nn.functional.pad(own / 64, (0, 2400)) for own in tokens]

    monkeypatch.setattr(model, "generate", generate)
    return model


def test_pairs_differ_by_the_correction_alone(model: MusicLM, tmp_path: Path) -> None:
    texts = [prompt.text for prompt in PROMPTS]
    plain = model.embed_text(texts)
    nothing = TextCorrection(torch.eye(plain.shape[1]), torch.zeros(plain.shape[1]))
    away = TextCorrection(torch.eye(plain.shape[1]), -3 * plain[0])
    with pytest.raises(UserError, match="of none of"):
        changed_prompts(model, nothing, PROMPTS)
    assert PROMPTS[0] in changed_prompts(model, away, PROMPTS)
    made = generate_pairs(model, away, PROMPTS, 2, tmp_path)
    for kind, embeddings in (("plain", plain), ("corrected", away(plain))):
        expected = model.tokenizer.quantizer.encode(embeddings) / 64
        for own, samples in zip(expected, made[kind], strict=True):
            assert len(samples) == 2
            for wave in samples:
                torch.testing.assert_close(wave[:3], own, atol=1e-3, rtol=0)
    other = generate_pairs(model, nothing, PROMPTS, 2, tmp_path)  # waves of an earlier correction lie there
    assert all(torch.equal(other[kind][0][0], made["plain"][0][0]) for kind in KINDS)
    assert not torch.equal(other["corrected"][0][0], made["corrected"][0][0])


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
