"""What the demo says of prompts that it cannot follow."""

import pytest
from helpers.paths import DEMO

from demo.prompts import control_prompts
from demo.training_domain import out_of_domain_warning
from open_musiclm import MusicLM


@pytest.fixture(scope="module")
def model() -> MusicLM:
    return MusicLM.from_pretrained(DEMO / "bundle", "cpu")


@pytest.mark.parametrize(
    "prompt",
    ["something sad on a cello", "quiet slow piano before sleep", "piano", "80s synth", "a fast tune", "Violin!"],
)
def test_what_it_knows_needs_no_remark(model: MusicLM, prompt: str) -> None:
    assert out_of_domain_warning(model, prompt) is None


def test_prompts_of_the_evaluation_need_no_remark(model: MusicLM) -> None:
    warnings = [out_of_domain_warning(model, prompt.text) for prompt in control_prompts(60, seed=3)]
    assert warnings == [None] * 60


@pytest.mark.parametrize("prompt", ["langsame Musik auf dem Klavier", "느린 첼로", "heavy metal", "a dog", "🎻"])
def test_what_it_does_not_know_is_said(model: MusicLM, prompt: str) -> None:
    warning = out_of_domain_warning(model, prompt)
    assert warning is not None
    assert "was not trained on such prompts" in warning
    assert "\n" not in warning
