"""What is measured of mixtures and style sounds: known answers, and a whole run on a small model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

from demo.classifier import SAMPLE_HZ
from demo.classifier_training import LabelledClip
from demo.corpus.instruments import INSTRUMENTS
from demo.prompting_measures import instrument_pairs, measure_mixtures, measure_styles
from open_musiclm import Mixture, Prompt
from open_musiclm.audio import write_wave

FAMILIES = sorted({instrument.family for instrument in INSTRUMENTS})
FAMILY_OF = {f"mid-tempo {instrument.name}": instrument.family for instrument in INSTRUMENTS}


def obedient(prompts: Sequence[Any]) -> list[torch.Tensor]:
    """Waves that hold the number of the family that each prompt asks for most, the first of equals."""
    return [torch.tensor([float(FAMILIES.index(family_of(prompt)))]) for prompt in prompts]


def family_of(prompt: Mixture | Prompt) -> str:
    if isinstance(prompt, Prompt):
        return Path(str(prompt.audio)).parent.name
    return FAMILY_OF[max(prompt.parts, key=lambda part: part.weight).text]


def classify(waves: Sequence[torch.Tensor]) -> list[str]:
    return [FAMILIES[int(wave[0])] for wave in waves]


def test_pairs_are_of_two_families_and_differ() -> None:
    pairs = instrument_pairs(50)
    assert len({(first.name, second.name) for first, second in pairs}) == 50
    assert all(first.family != second.family for first, second in pairs)
    assert instrument_pairs(50) == pairs != instrument_pairs(50, seed=1)


def test_a_model_that_does_what_it_is_asked_for_has_the_best_measures() -> None:
    found = measure_mixtures(obedient, classify, 20)
    assert {share["share"] for share in found["one of the two"].values()} == {1.0}
    assert [share["share"] for share in found["the second"].values()] == [0, 0, 0, 1, 1]
    assert found["the second never falls as its weight rises"]


def test_a_model_that_always_plays_the_same_follows_no_mixture() -> None:
    found = measure_mixtures(obedient, lambda waves: ["brass"] * len(waves), 20)
    brass = sum("brass" in (first.family, second.family) for first, second in instrument_pairs(20)) / 20
    half = found["one of the two"]["0.5"]
    assert half["share"] == brass
    assert half["standard_error"] == pytest.approx((brass * (1 - brass) / 20) ** 0.5)


def test_style_sounds_are_of_all_families_in_turn(tmp_path: Path) -> None:
    clips = []
    for number, family in enumerate(["brass"] * 4 + ["organs"] * 2):
        (tmp_path / family).mkdir(exist_ok=True)
        path = tmp_path / family / f"{number}.wav"
        write_wave(path, torch.full((9600,), FAMILIES.index(family) / 100 + 0.002), SAMPLE_HZ)
        clips.append(LabelledClip(path, family, "slow"))
    found = measure_styles(obedient, lambda waves: ["organs"] * len(waves), clips, 4, 0.4)
    assert found["clips"] == 4
    assert found["followed in family"]["share"] == 0.5
    assert measure_styles(obedient, lambda waves: ["organs"] * len(waves), clips, 6, 0.4)["followed in family"][
        "share"
    ] == pytest.approx(1 / 3)


def test_a_whole_measure_of_a_small_model(stack: Stack, tmp_path: Path) -> None:
    clip = {"file": "a.wav", "instrument_family": "brass", "tempo_class": "slow"}
    write_wave(tmp_path / "a.wav", 0.3 * torch.rand(12000), SAMPLE_HZ)
    (tmp_path / "captions.jsonl").write_text(json.dumps(clip))
    done = forks.run(
        [REPOSITORY / "demo/measure_prompting.py", "--checkpoint_dir", str(stack.folder), "--num_pairs", "2",
         "--style_corpus", str(tmp_path), "--num_styles", "1", "--duration", "0.4", "--return_coarse_wave",
         "--results_folder", str(tmp_path / "results"), "--device", "cpu"]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results/prompting.json").read_text())
    assert report["mixtures"]["pairs"] == 2
    assert list(report["mixtures"]["the second"]) == ["0", "0.25", "0.5", "0.75", "1"]
    assert report["styles"]["followed in family"]["share"] in (0, 1)
