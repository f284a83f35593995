"""Instrument matching: the demo's script, on a few clips and the bundle of the repository."""

import json
import random
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY
from safetensors.torch import load_file

from demo.backbones.code_loss import CodeLoss
from demo.corpus.corpus import Clip
from demo.corpus.instruments import INSTRUMENTS
from demo.corpus.wordings import tempo_sentences
from demo.prompts import control_prompts
from open_musiclm.config import load_model_config
from open_musiclm.tokenizers.clap_directory import ClapDirectory
from open_musiclm.tokenizers.rvq import ClapQuantizer

MODEL, BUNDLE = REPOSITORY / "configs/demo/model.json", DEMO / "bundle"
TEMPI = {"slow": 1.0, "medium": 2.5, "fast": 6.0}  # notes a second


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return forks.run([REPOSITORY / "demo/train_instrument_matching.py", *arguments])


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Plucked tones at three tempi as a harp's and as two harps', with the labels of the demo corpus."""
    folder = tmp_path_factory.mktemp("clips")
    time = np.arange(12 * 24000) / 24000
    lines = []
    for number, (tempo, hz) in enumerate(TEMPI.items()):
        name, family = f"{number}.wav", ("plucked strings", "mixed")[number == 1]
        tone = 0.3 * np.sin(2 * np.pi * 330 * time) * np.exp(-8 * (time % (1 / hz)))
        soundfile.write(folder / name, tone, 24000)
        caption = f"{tempo} harp"
        clip = Clip(
            name, caption, [caption], ["harp"], family, 100, tempo, "major", "sparse", "middle", "none", 12.0, 0
        )
        lines.append(json.dumps(asdict(clip)))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    config = json.loads((DEMO / "configs/train_clap.json").read_text())
    config["trainer"] |= {"folder": str(folder), "spectrogram_folder": None}
    (folder / "clap.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_the_losses_fall_and_training_continues_from_the_clap_that_was_written(clips, tmp_path):
    target, configs = tmp_path / "clap", ("--config", clips / "clap.json", "--model_config", MODEL)
    reported = []
    for steps in (20, 40, 40):
        done = run(BUNDLE / "clap", target, *configs, "--steps", steps, "--batch_size", 4)
        assert done.returncode == 0, done.stderr
        reported += [line for line in done.stdout.splitlines() if line.startswith("step")]
        assert [folder.name for folder in target.iterdir()] == [f"step_{steps:08d}"]
    assert [line.split(":")[0] for line in reported] == ["step 20", "step 40"]
    names = ("contrast", "family and tempo", "tempo", "alignment", "separation")
    first, last = ([float(re.search(f"(?:, |: ){name} ([0-9.]+)", line)[1]) for name in names] for line in reported)
    assert sum(last) < sum(first)
    assert {file.name for file in (target / "step_00000040").iterdir()} >= {"config.json", "model.safetensors"}


@pytest.mark.slow
def test_a_frozen_text_tower_stays_and_the_audio_tower_learns(clips, tmp_path):
    done = run(
        BUNDLE / "clap", tmp_path, "--config", clips / "clap.json", "--model_config", MODEL,
        "--steps", 2, "--batch_size", 4, "--freeze_text",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before = load_file(BUNDLE / "clap/model.safetensors")
    after = load_file(tmp_path / "step_00000002/model.safetensors")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed >= {"audio_model", "audio_projection"}
    assert not changed & {"text_model", "text_projection"}


@pytest.mark.slow
def test_sounds_are_brought_to_codes_of_their_family(clips, tmp_path):
    configs = ("--config", clips / "clap.json", "--model_config", MODEL, "--steps", 40, "--batch_size", 4)
    refused = run(BUNDLE / "clap", tmp_path, *configs, "--rvq_path", BUNDLE)
    assert refused.returncode == 2
    assert "--rvq_path: needs --freeze_text" in refused.stderr
    done = run(BUNDLE / "clap", tmp_path, *configs, "--rvq_path", BUNDLE, "--freeze_text")
    assert done.returncode == 0, done.stderr
    first, last = (float(found) for found in re.findall(r"codes ([0-9.]+)", done.stdout))
    assert last < first


def test_a_code_means_what_its_nearest_sentence_says():
    config = load_model_config(BUNDLE / "model_config.json")
    quantizer = ClapQuantizer.load(BUNDLE, config, torch.device("cpu"))
    clap = ClapDirectory(BUNDLE / "clap", "test").load()
    loss = CodeLoss(clap, quantizer)
    clip = Clip("", "", [""], ["harp"], "plucked strings", 60, "slow", "major", "sparse", "middle", "none", 12.0, 0)
    meant = {meaning: torch.nn.functional.normalize(loss.codes[place], dim=0)[None]
             for place, meaning in enumerate(loss.meanings)}  # fmt: skip
    right = float(loss(meant["plucked strings", "slow"], [clip]))
    assert right < float(loss(meant["plucked strings", "fast"], [clip])) < float(loss(meant["brass", "fast"], [clip]))
    assert float(loss(meant["brass", "fast"], [replace(clip, instrument_family="mixed")])) == 0
    loss.meanings = [meaning for meaning in loss.meanings if meaning != ("plucked strings", "slow")]
    loss.codes = loss.codes[: len(loss.meanings)]  # none is left for this clip's family and tempo
    sounds = meant["brass", "fast"].clone().requires_grad_()
    loss(sounds, [clip]).backward()
    assert sounds.grad.isfinite().all()
    assert sounds.grad.any()


@pytest.mark.slow
def test_batches_without_a_clip_of_one_family_are_trained_on(clips, tmp_path):
    """Each batch is one clip, and one of three clips is of several families."""
    configs = ("--config", clips / "clap.json", "--model_config", MODEL)
    done = run(BUNDLE / "clap", tmp_path / "out", *configs, "--steps", 8, "--batch_size", 1)
    assert done.returncode == 0, done.stderr


def test_a_folder_without_a_clap_is_one_clear_line(clips, tmp_path):
    configs = ("--config", clips / "clap.json", "--model_config", MODEL)
    done = run(tmp_path / "nowhere", tmp_path / "out", *configs)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"cannot load {tmp_path / 'nowhere'}: there is no config.json")


def test_sentences_differ_in_the_tempo_alone_and_are_no_prompts_of_the_evaluation():
    rng = random.Random(0)
    asked = {prompt.text for prompt in control_prompts(2000, seed=0)}
    for instrument in INSTRUMENTS:
        for _ in range(20):
            sentences = tempo_sentences(instrument, rng)
            assert not asked & set(sentences)
            assert any(name in sentence for name in instrument.names for sentence in sentences[:1])
            words = [set(sentence.split()) - {"a", "an"} for sentence in sentences]
            assert all(len(some - words[0]) <= 2 for some in words[1:])
