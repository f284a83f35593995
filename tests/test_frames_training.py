"""Training in the frames layout with the project's scripts: resume, checkpointing, precision, and a whole chain."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import SCRIPTS, on_cpu
from helpers.small_stack import Stack, build_stack
from test_frames_layout import frames_stage, ids_of

from open_musiclm.checkpoints import load_weights
from open_musiclm.config import GenerationConfig
from open_musiclm.generation.musiclm import MusicLM

COARSE = {"stage": "coarse", "num_train_steps": 6, "batch_size": 2, "lr": 3e-3, "valid_frac": 0.4, "num_workers": 0}
COARSE |= {"save_results_every": 3, "save_model_every": 3, "use_preprocessed_data": True, "precision": "float32"}


def run(script: str, *words: object, status: int = 0) -> str:
    ended = forks.run([SCRIPTS / f"{script}.py", *words, *on_cpu(script)])
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


def model_file(stack: Stack, folder: Path, split: tuple[int, int] = (3, 5)) -> Path:
    """The small model's config in the frames layout."""
    content = json.loads(stack.model_config.read_text())
    content["global_cfg"] |= {"num_coarse_quantizers": split[0], "num_fine_quantizers": split[1]}
    for section in ("coarse_cfg", "fine_cfg"):
        content[section] |= {"token_layout": "frames", "conditioning_kernel": 3, "ff_dropout": 0.2}
    for section in ("clap_rvq_cfg", "hubert_kmeans_cfg", "encodec_cfg"):
        content[section]["model_name"] = str(stack.folder / content[section]["model_name"])
    path = folder / "model.json"
    path.write_text(json.dumps(content))
    return path


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path: Path, stack: Stack, tokens: Path) -> None:
    training = tmp_path / "training.json"
    model = model_file(stack, tmp_path)
    words = ["--model_config", model, "--training_config", training, "--log_with", "none"]
    training.write_text(json.dumps({"coarse_trainer_cfg": {**COARSE, "folder": str(tokens)}}))
    run("train_coarse_stage", *words, "--results_folder", tmp_path / "whole")
    training.write_text(json.dumps({"coarse_trainer_cfg": {**COARSE, "folder": str(tokens), "num_train_steps": 3}}))
    run("train_coarse_stage", *words, "--results_folder", tmp_path / "parts")
    training.write_text(json.dumps({"coarse_trainer_cfg": {**COARSE, "folder": str(tokens)}}))
    run("train_coarse_stage", *words, "--continue_from_dir", tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (load_weights(tmp_path / name, "coarse").tensors for name in ("whole", "parts"))
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    assert list((tmp_path / "whole" / "samples").rglob("*_predicted.wav"))


@pytest.mark.slow
def test_one_acoustic_stage_goes_from_sound_to_sound(tmp_path: Path, stack: Stack, sounds: Path) -> None:
    """Preprocess, train, bundle, generate, regenerate: a fine stage is nowhere asked for."""
    model, store = model_file(stack, tmp_path, (8, 0)), tmp_path / "tokens"
    stage = {**COARSE, "folder": str(store), "num_train_steps": 2, "save_results_every": 2, "save_model_every": 2}
    preprocessing = {"folder": str(sounds), "results_folder": str(store), "num_workers": 0}
    training = tmp_path / "training.json"
    training.write_text(json.dumps({"coarse_trainer_cfg": stage, "data_preprocessor_cfg": preprocessing}))
    tokenizers = ["--rvq_path", stack.weights("clap_rvq"), "--kmeans_path", stack.weights("hubert_kmeans")]
    configs = ["--model_config", model, "--training_config", training]
    run("preprocess_data", *configs, *tokenizers)
    output = run("train_coarse_stage", *configs, *tokenizers, "--results_folder", tmp_path / "coarse")
    assert "infer_top_match.py" in output
    assert "fine" not in output.splitlines()[-1]
    parts = ["--semantic_path", stack.weights("semantic"), "--coarse_path", tmp_path / "coarse", *tokenizers]
    run("bundle", "--model_config", model, *parts, "--results_folder", tmp_path / "bundle")
    assert not list((tmp_path / "bundle").glob("fine*"))
    folder = tmp_path / "out"
    words = ["--checkpoint_dir", tmp_path / "bundle", "--results_folder", folder]
    run("infer_top_match", "a tune", *words, "--num_samples", 2, "--duration", 1.3)
    (wave,) = folder.glob("a_tune*.wav")
    assert soundfile.info(wave).frames == round(1.3 * 24000)
    run("infer_coarse", sounds / "0.wav", *words)
    assert "no fine stage" in run("infer_fine", sounds / "0.wav", *words, status=2)
    training.write_text(json.dumps({"fine_trainer_cfg": {**stage, "stage": "fine"}}))
    assert "no fine stage" in run("train_fine_stage", *configs, "--results_folder", tmp_path / "fine", status=2)


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        stage = frames_stage("fine").train()
        stage.layout.transformer.gradient_checkpointing = checkpointing
        stage(ids_of(stage, 2, 9), seeds=torch.arange(2, dtype=torch.int32)).loss.backward()
        gradients.append({name: weight.grad for name, weight in stage.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_bfloat16_products_are_close() -> None:
    stage = frames_stage("coarse")
    ids = ids_of(stage, 2, 12)
    exact = float(stage(ids).loss)
    with torch.autocast("cpu", torch.bfloat16):
        rough = float(stage(ids).loss)
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact


@pytest.fixture(scope="module")
def frames_model(tmp_path_factory: pytest.TempPathFactory) -> MusicLM:
    """A whole model in the frames layout with random weights."""
    return build_stack(tmp_path_factory.mktemp("frames"), "frames").musiclm()


@pytest.mark.parametrize("seconds", [0.001, 0.5, 1.2, 3.3])
def test_any_duration_is_exact_and_chunks_join(frames_model: MusicLM, seconds: float) -> None:
    (wave,) = frames_model.generate("a slow piano", seconds)
    assert wave.shape == (round(seconds * 24000),)
    chunks = [chunk for _, chunk in frames_model.stream("a slow piano", seconds)]
    assert torch.equal(torch.cat(chunks, dim=1)[0], wave)


def test_a_sample_depends_on_seed_prompt_and_number_only(frames_model: MusicLM) -> None:
    waves = frames_model.generate(["one", "two"], 1.0, num_samples=3)
    for batch in (1, 4):
        config = GenerationConfig(max_batch_size=batch)
        for left, right in zip(waves, frames_model.generate(["one", "two"], 1.0, 3, config), strict=True):
            torch.testing.assert_close(left, right, atol=1e-5, rtol=0)
    assert not torch.equal(waves[0], waves[1])
