"""The CLAP in the repository: prompts in words that no caption had land on the caption that means the same."""

import pytest
import torch
from helpers.paths import REPOSITORY

from demo.corpus.instruments import INSTRUMENTS
from demo.prompts import control_prompts
from open_musiclm.config import load_model_config
from open_musiclm.tokenizers.clap import Clap

MODEL = REPOSITORY / "configs/demo/model.json"
CAPTIONS = {
    f"{word} {instrument.name}": (instrument.family, pace)
    for instrument in INSTRUMENTS
    for pace, word in (("slow", "slow"), ("medium", "mid-tempo"), ("fast", "fast"))
}
PARAPHRASES = {
    "gentle piano lullaby": "slow piano",
    "sad slow song on a cello": "slow cello",
    "an upbeat banjo hoedown": "fast banjo",
    "peaceful church organ hymn": "slow church organ",
    "choir singing a calm hymn": "slow choir",
    "lively fiddle reel": "fast violin",
    "dreamy slow harp": "slow harp",
    "a mournful trumpet at dusk": "slow trumpet",
    "quick bagpipe jig": "fast bagpipes",
    "heavy distorted guitar riff, fast": "fast distorted guitar",
    "moody slow saxophone": "slow saxophone",
    "playful clarinet, rapid": "fast clarinet",
}


@pytest.fixture(scope="module")
def clap() -> Clap:
    return Clap.load(load_model_config(MODEL), torch.device("cpu"))


def nearest(clap: Clap, prompts: list[str]) -> list[str]:
    likeness = clap.embed_text(prompts) @ clap.embed_text(list(CAPTIONS)).T
    return [list(CAPTIONS)[number] for number in likeness.argmax(dim=1)]


def test_paraphrases_land_on_their_captions(clap):
    assert dict(zip(PARAPHRASES, nearest(clap, list(PARAPHRASES)), strict=True)) == PARAPHRASES


def test_case_means_nothing(clap):
    prompts = ["Slow Piano", "slow piano", "FAST Violin Tune", "fast violin tune"]
    embeddings = clap.embed_text(prompts)
    assert torch.equal(embeddings[0], embeddings[1])
    assert torch.equal(embeddings[2], embeddings[3])


def test_the_prompts_of_the_evaluation_land_on_captions_of_their_family_and_pace(clap):
    prompts = control_prompts(200, seed=0)
    found = [CAPTIONS[caption] for caption in nearest(clap, [prompt.text for prompt in prompts])]
    right = [here == (prompt.family, prompt.tempo) for here, prompt in zip(found, prompts, strict=True)]
    assert sum(right) >= 190


def test_both_scales_of_the_shipped_clap_are_the_trained_one(clap):
    """The loss trains the sound's; the text's is what scores are scaled by."""
    assert clap.model.logit_scale_t.item() == clap.model.logit_scale_a.item()
    assert clap.scale == pytest.approx(21.7, abs=0.1)
