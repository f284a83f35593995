"""The measures of the demo's evaluation, on sounds whose answer is given."""

import json

import numpy as np
import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.classifier import SAMPLE_HZ, PromptClassifier
from demo.modulated_noise import noise_modulated
from demo.prompts import control_prompts
from open_musiclm.audio import write_wave
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import StoreDescription
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.metrics.frechet import frechet_distance
from open_musiclm.metrics.ngram_overlap import deduplicated, ngram_overlap, ngrams

TOKENS = st.lists(st.integers(0, 5), max_size=60)


def played(harmonics: int, notes_per_second: float, seed: int, seconds: float = 4.0) -> torch.Tensor:
    """Decaying notes of random pitches with so many harmonics."""
    random = np.random.default_rng(seed)
    wave = np.zeros(round(seconds * SAMPLE_HZ))
    for onset in np.arange(0, seconds - 0.1, 1 / notes_per_second):
        first = round(onset * SAMPLE_HZ)
        time = np.arange(len(wave) - first) / SAMPLE_HZ
        hz = 220 * 2 ** random.uniform(0, 1)
        tones = sum(np.sin(2 * np.pi * hz * order * time) / order for order in range(1, harmonics + 1))
        wave[first:] += tones * np.exp(-6 * time)
    return torch.from_numpy((0.3 * wave / np.abs(wave).max()).astype(np.float32))


def test_the_classifier_tells_timbres_and_tempi_it_was_fitted_to():
    kinds = [("dull", 1), ("sharp", 12)]
    speeds = [("slow", 1.0), ("medium", 3.0), ("fast", 7.0)]
    cases = [(family, tempo, count, rate) for family, count in kinds for tempo, rate in speeds]
    training = [(played(count, rate, seed), family, tempo) for family, tempo, count, rate in cases for seed in range(8)]
    waves, families, tempi = zip(*training, strict=True)
    classifier = PromptClassifier().fit(iter(waves), families, tempi)
    unseen = [played(count, rate, seed=99) for _, _, count, rate in cases]
    right = [found == family for found, (family, *_) in zip(classifier.families(unseen), cases, strict=True)]
    assert sum(right) >= 5
    assert classifier.tempi(unseen) == [tempo for _, tempo, *_ in cases]


def test_a_level_does_not_change_the_class():
    training = [(played(count, 2.0, seed), name) for name, count in (("dull", 1), ("sharp", 12)) for seed in range(4)]
    classifier = PromptClassifier().fit(
        [wave for wave, _ in training], [name for _, name in training], ["slow", "fast"] * 4
    )
    wave = played(12, 2.0, 50)
    assert classifier.families([wave, 0.05 * wave]) == ["sharp", "sharp"]


def test_the_distance_of_normal_distributions_has_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(20000, 3, generator=generator)
    right = 2 * torch.randn(20000, 3, generator=generator) + torch.tensor([1.0, 0.0, 0.0])
    assert frechet_distance(left, right) == pytest.approx(1 + 3 * (1 + 4 - 2 * 2), rel=0.05)
    assert frechet_distance(left, left) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(left, right) == pytest.approx(frechet_distance(right, left))


def test_modulated_noise_is_as_loud_as_the_wave_where_the_wave_is():
    wave = torch.cat((torch.zeros(4800), 0.5 * torch.sin(torch.arange(4800) * 0.3), torch.zeros(4801)))
    noise = noise_modulated(wave, 24000, torch.Generator().manual_seed(0))
    assert noise.shape == wave.shape
    assert noise[:4800].abs().max() == 0
    assert noise[-4000:].abs().max() == 0
    assert noise[4800:9600].std() == pytest.approx(float(wave[4800:9600].std()), rel=0.1)


@given(tokens=TOKENS, length=st.integers(1, 6))
def test_a_clip_repeats_itself_and_how_long_its_sounds_last_does_not_count(tokens, length):
    held = [token for token in tokens for _ in range(3)]
    expected = 1.0 if len(deduplicated(tokens)) >= length else 0.0
    assert ngram_overlap([held], [tokens], length) == expected


@given(tokens=TOKENS, others=TOKENS)
@settings(max_examples=30)
def test_longer_runs_are_rarer(tokens, others):
    shares = [ngram_overlap([tokens], [others], length) for length in range(1, 8)]
    assert shares == sorted(shares, reverse=True)
    assert ngram_overlap([tokens], [[9, 10, 11]], 1) == 0.0
    assert ngrams([1, 2, 2, 3], 2) == {(1, 2), (2, 3)}


def test_prompts_ask_for_every_family_and_tempo_equally_often():
    prompts = control_prompts(81, seed=1)
    assert control_prompts(81, seed=1) == prompts != control_prompts(81, seed=2)
    kinds = [(prompt.family, prompt.tempo) for prompt in prompts]
    assert {kinds.count(kind) for kind in kinds} == {3}
    assert len({family for family, _ in kinds}) == 9


def write_corpus(folder, seeds):
    """Clips of two families and two tempi, with the lines of a demo corpus."""
    lines = []
    for seed in seeds:
        for family, harmonics in (("piano", 1), ("brass", 12)):
            for tempo, rate in (("slow", 1.0), ("fast", 7.0)):
                name = f"{seed}_{family}_{tempo}.flac"
                write_wave(folder / name, played(harmonics, rate, seed, seconds=2.5), SAMPLE_HZ)
                lines.append(json.dumps({"file": name, "instrument_family": family, "tempo_class": tempo}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_a_whole_evaluation_of_a_small_model(stack, tmp_path):
    stored = StoredTokens(
        "a.wav", 0.0, 2.0, torch.zeros(1, 3).long(), torch.arange(99)[:, None] % 40,
        torch.zeros(30, 3).long(), torch.zeros(30, 5).long(),
    )  # fmt: skip
    with TokenStoreWriter(tmp_path / "tokens", StoreDescription(stack.config, {})) as writer:
        writer.add([stored])
    command = [
        REPOSITORY / "demo/evaluate.py", "--checkpoint_dir", str(stack.folder),
        "--classifier_corpus", str(write_corpus(tmp_path / "labelled", (1, 2, 3))),
        "--held_out_corpus", str(write_corpus(tmp_path / "held_out", (4,))),
        "--training_tokens", str(tmp_path / "tokens"), "--num_prompts", "3", "--num_samples", "2",
        "--duration", "2", "--results_folder", str(tmp_path / "results"), "--device", "cpu",
    ]  # fmt: skip
    done = forks.run(command)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results/evaluation.json").read_text())
    assert report["prompt adherence"]["family, real clips"] >= 0.75
    assert report["prompt adherence"]["prompts"] == 3
    assert len(report["codec"]["codebook usage"]) == 8
    assert report["distance"]["clips of each set"] == 2
    assert report["memorization"]["runs of 32 changes, generated"] in (0, 1 / 3, 2 / 3, 1)
    assert len(list((tmp_path / "results").glob("*.flac"))) == 3
