"""Each training script on small backbones and short noises, as the scripts call it; what they write is usable."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState
from helpers.paths import on_cpu
from helpers.run_logs import log
from helpers.script_modules import load_script
from helpers.small_stack import Stack
from safetensors.torch import load_file, save_file

from open_musiclm.audio import Sound
from open_musiclm.checkpoints import load_weights, saved_steps
from open_musiclm.config import STAGE_NAMES, StageName, StageTrainerConfig, load_model_config
from open_musiclm.errors import UserError
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.metrics.frechet import frechet_distance
from open_musiclm.models.stages import load_stage
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.training.generated_evaluation import StageEvaluator

CPU = torch.device("cpu")
STAGE = {"num_train_steps": 2, "batch_size": 2, "grad_accum_every": 1, "save_results_every": 2, "save_model_every": 2}
STAGE |= {"valid_frac": 0.4, "num_workers": 0, "lr": 1e-3}


def run(script: str, *words: object) -> None:
    """Runs a script's main in this process: starting Python for each would take most of the time."""
    AcceleratorState._reset_state(reset_partial_state=True)
    module = load_script(f"scripts/{script}.py")
    module.main(module.arguments().parse_args([*map(str, words), *on_cpu(script)]))


Configs = Callable[..., list[object]]


@pytest.fixture
def configs(tmp_path: Path, stack: Stack, sounds: Path) -> Configs:
    """Writes a training config with these sections; returns the arguments that name it and the model config."""

    def write(**sections: dict[str, Any]) -> list[object]:
        path = tmp_path / "training.json"
        path.write_text(json.dumps({name: {"folder": str(sounds), **keys} for name, keys in sections.items()}))
        return ["--training_config", path, "--model_config", stack.model_config]

    return write


def tokenizers(stack: Stack) -> list[object]:
    return ["--rvq_path", stack.weights("clap_rvq"), "--kmeans_path", stack.weights("hubert_kmeans")]


def test_clap_rvq_trains_goes_on_and_is_usable(tmp_path: Path, configs: Configs, stack: Stack) -> None:
    folder = tmp_path / "clap_rvq"
    section = {"num_train_steps": 2, "batch_size": 2, "accumulate_batches": 2, "save_model_every": 1}
    section |= {"save_results_every": 1, "num_workers": 0, "valid_frac": 0.3}
    run("train_clap_rvq", "--results_folder", folder, "--log_with", "none", *configs(clap_rvq_trainer_cfg=section))
    validation = [line for line in log(folder) if "validation_loss" in line]
    assert [line["step"] for line in validation] == [1, 2]
    assert all(0 < line["validation_codebook_usage"] <= 1 for line in validation)
    ids = ClapQuantizer.load(folder, stack.config, CPU).encode(torch.randn(2, 16))
    assert ids.shape == (2, stack.config.clap_rvq_cfg.rq_num_quantizers)
    assert "broken.wav" in (folder / "failed_sounds.txt").read_text()

    longer = configs(clap_rvq_trainer_cfg=section | {"num_train_steps": 3})
    run("train_clap_rvq", "--continue_from", folder, "--log_with", "none", *longer)
    assert saved_steps(folder)[-1] == 3
    assert [line["step"] for line in log(folder) if "loss" in line] == [1, 2, 3]

    file = folder / "checkpoints/step_00000003/clap_rvq.safetensors"
    further = configs(clap_rvq_trainer_cfg=section | {"num_train_steps": 4})
    run("train_clap_rvq", "--continue_from", file, "--results_folder", tmp_path / "b", "--log_with", "none", *further)
    assert [line["step"] for line in log(tmp_path / "b") if "loss" in line] == [4]


def test_kmeans_fits_and_is_usable(tmp_path: Path, configs: Configs, stack: Stack) -> None:
    folder = tmp_path / "kmeans"
    section = {"feature_extraction_num_steps": 4, "feature_extraction_batch_size": 2, "num_workers": 0}
    run(
        "train_hubert_kmeans",
        "--results_folder",
        folder,
        "--log_with",
        "none",
        *configs(hubert_kmeans_trainer_cfg=section),
    )
    assert [line["step"] for line in log(folder)] == [1, 2, 3, 4]
    assert log(folder)[-1]["inertia"] > 0
    found = load_weights(folder, "hubert_kmeans").model_config
    assert found is not None
    assert found.model_dump() == stack.config.model_dump()
    tokenizer = MusicTokenizer.load(stack.config, stack.weights("clap_rvq"), folder, CPU)
    ids = tokenizer.semantic_ids(torch.randn(2, 16000))
    assert ids.shape == (2, 49, 1)
    assert len(ids.unique()) > 3


def test_kmeans_with_too_little_sound_or_too_few_batches(tmp_path: Path, configs: Configs, stack: Stack) -> None:
    model = json.loads(stack.model_config.read_text())
    model["hubert_kmeans_cfg"] |= {"codebook_size": 2000, "model_name": str(stack.folder / "mert")}
    section = {"feature_extraction_num_steps": 1, "feature_extraction_batch_size": 2, "num_workers": 0}

    def fit(codebook_size: int) -> None:
        model["hubert_kmeans_cfg"]["codebook_size"] = codebook_size
        (tmp_path / "model.json").write_text(json.dumps(model))
        words = [*configs(hubert_kmeans_trainer_cfg=section), "--model_config", tmp_path / "model.json"]
        run("train_hubert_kmeans", "--results_folder", tmp_path / str(codebook_size), "--log_with", "none", *words)

    with pytest.raises(UserError, match=r"2000 clusters, but the sound found has only 875 frames"):
        fit(2000)
    with pytest.raises(UserError, match=r"300 clusters, but only 198 frames were extracted; raise feature_extraction"):
        fit(300)


def test_features_that_are_not_finite_name_the_backbone(tmp_path: Path, configs: Configs, stack: Stack) -> None:
    shutil.copytree(stack.folder / "mert", tmp_path / "mert")
    weights = load_file(tmp_path / "mert/model.safetensors")
    name = next(name for name in weights if name.endswith("layer_norm.weight"))
    largest = torch.full_like(weights[name], torch.finfo(torch.float32).max)
    save_file(weights | {name: largest}, tmp_path / "mert/model.safetensors")
    model = json.loads(stack.model_config.read_text())
    model["hubert_kmeans_cfg"]["model_name"] = str(tmp_path / "mert")
    (tmp_path / "model.json").write_text(json.dumps(model))
    section = {"feature_extraction_num_steps": 1, "feature_extraction_batch_size": 2, "num_workers": 0}
    words = [*configs(hubert_kmeans_trainer_cfg=section), "--model_config", tmp_path / "model.json"]
    with pytest.raises(UserError, match=r"model_name: the features of .*mert are not finite"):
        run("train_hubert_kmeans", "--results_folder", tmp_path / "kmeans", "--log_with", "none", *words)


@pytest.mark.parametrize("preprocessed", [False, True])
@pytest.mark.parametrize("name", STAGE_NAMES)
def test_stage_trains(
    tmp_path: Path, configs: Configs, stack: Stack, tokens: Path, name: StageName, preprocessed: bool
) -> None:
    folder = tmp_path / name
    section = {"stage": name, **STAGE}
    if preprocessed:
        section |= {"folder": str(tokens), "use_preprocessed_data": True}
    words = [] if preprocessed else tokenizers(stack)
    trained = configs(**{f"{name}_trainer_cfg": section})
    run(f"train_{name}_stage", "--results_folder", folder, "--log_with", "none", *words, *trained)
    assert load_stage(folder, name, stack.config, CPU).name == name
    samples = folder / "samples/step_00000002"
    assert load_file(samples / "tokens.safetensors")["predicted"].shape[0] == 2
    waves = sorted(path.name for path in samples.glob("*.wav"))
    seconds = stack.config.window_seconds(name)
    if name == "semantic":
        assert waves == []
    else:
        assert waves == ["0_predicted.wav", "0_true.wav", "1_predicted.wav", "1_true.wav"]
        assert soundfile.info(samples / waves[0]).frames == round(seconds * stack.config.encodec_cfg.sample_hz)


def test_fine_tuning_begins_with_the_weights_given(
    tmp_path: Path, configs: Configs, stack: Stack, tokens: Path
) -> None:
    section = {"stage": "fine", **STAGE, "num_train_steps": 1, "lr": 1e-12, "folder": str(tokens)}
    words = configs(fine_trainer_cfg=section | {"use_preprocessed_data": True})
    words += ["--results_folder", tmp_path / "fine", "--log_with", "none"]
    run("train_fine_stage", "--fine_tune_from", stack.weights("fine"), *words)
    before, after = (load_weights(path, "fine").tensors for path in (stack.weights("fine"), tmp_path / "fine"))
    for name, tensor in before.items():
        assert torch.allclose(after[name], tensor, atol=1e-8), name


def test_misuse_is_told(tmp_path: Path, configs: Configs, stack: Stack, tokens: Path) -> None:
    words = [*configs(coarse_trainer_cfg={"stage": "coarse", **STAGE}), "--results_folder", tmp_path / "coarse"]
    with pytest.raises(UserError, match="missing --rvq_path, --kmeans_path"):
        run("train_coarse_stage", *words)
    words += tokenizers(stack)
    with pytest.raises(UserError, match="--fine_tune_from and --continue_from_dir exclude each other"):
        run("train_coarse_stage", "--fine_tune_from", stack.folder, "--continue_from_dir", stack.folder, *words)
    with pytest.raises(UserError, match=r"fine\.safetensors: holds fine weights; coarse weights"):
        run("train_coarse_stage", "--fine_tune_from", stack.weights("fine"), *words)
    with pytest.raises(UserError, match="holds no checkpoint to resume from"):
        run("train_coarse_stage", "--continue_from_dir", stack.folder, *words)
    with pytest.raises(UserError, match="--continue_from_step: needs --continue_from_dir"):
        run("train_coarse_stage", "--continue_from_step", 3, *words)
    with pytest.raises(UserError, match="section semantic_trainer_cfg is missing"):
        run("train_semantic_stage", *words)


def test_configs_of_the_run_can_be_read_again(tmp_path: Path, configs: Configs, stack: Stack, tokens: Path) -> None:
    section = {"stage": "fine", **STAGE, "num_train_steps": 1, "folder": str(tokens), "use_preprocessed_data": True}
    folder = tmp_path / "fine"
    run("train_fine_stage", "--results_folder", folder, "--log_with", "none", *configs(fine_trainer_cfg=section))
    found = load_model_config(folder / "model_config.json")
    assert found.encodec_cfg.model_name == str(stack.folder / "encodec")
    again = ["--training_config", folder / "training_config.json", "--model_config", folder / "model_config.json"]
    run("train_fine_stage", "--results_folder", tmp_path / "again", "--log_with", "none", *again)
    assert log(tmp_path / "again")[0]["loss"] == log(folder)[0]["loss"]


def audible(codec: Codec, ids: torch.Tensor) -> torch.Tensor:
    """A wave that depends on the tokens; the small codec's weights are random, and all that it makes is silence."""
    return (ids.float().mean(-1) / 64 - 0.5).repeat_interleave(1600, dim=1)


def test_the_fad_of_a_stage_is_that_of_evaluation(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode(codec: Codec, ids: torch.Tensor) -> torch.Tensor:
        decoded.append(audible(codec, ids))
        return decoded[-1]

    monkeypatch.setattr(Codec, "decode", decode)
    config = StageTrainerConfig(
        stage="coarse", folder="", evaluate_every=1, evaluate_samples=3, num_train_steps=1, batch_size=3
    )
    evaluator = StageEvaluator.load(stack.config, config, stack.weights("clap_rvq"), CPU)
    stage = stack.stages(["coarse"])["coarse"]
    ids = [
        torch.randint(40, (3, frames, kind.quantizers))
        for frames, kind in zip((1, 59, 18), stage.sequences, strict=True)
    ]
    found = evaluator.evaluate(stage.eval(), [ids])
    measure = ClapMeasure(evaluator.embedder.clap, 2.0, "CLAP")

    def windows(waves: torch.Tensor) -> torch.Tensor:
        sounds = [Sound(wave, stack.config.encodec_cfg.sample_hz) for wave in waves]
        return torch.cat([measured["windows"] for measured in measure.measure(sounds)])

    generated, true = map(windows, decoded)
    assert found["fad"] == pytest.approx(frechet_distance(generated, true), rel=1e-6)


def test_the_evaluation_of_a_stage_does_not_depend_on_the_batches(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once every batch had the coarse stage's random numbers of the first."""
    monkeypatch.setattr(Codec, "decode", audible)
    config = StageTrainerConfig(
        stage="semantic", folder="", evaluate_every=1, evaluate_samples=3, num_train_steps=1, batch_size=3,
        evaluate_coarse_path=str(stack.weights("coarse")),
    )  # fmt: skip
    evaluator = StageEvaluator.load(stack.config, config, stack.weights("clap_rvq"), CPU)
    stage = stack.stages(["semantic"])["semantic"].eval()
    clap, semantic = stage.sequences
    ids = [torch.randint(40, (3, 1, clap.quantizers)), torch.randint(40, (1, 99, semantic.quantizers)).repeat(3, 1, 1)]
    apart = [[sequence[place : place + 1] for sequence in ids] for place in range(3)]
    assert evaluator.evaluate(stage, [ids]) == pytest.approx(evaluator.evaluate(stage, apart), rel=1e-4)


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_stage_is_evaluated_by_what_it_generates(
    stage: StageName, tmp_path: Path, configs: Configs, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Codec, "decode", audible)
    section = STAGE | {"stage": stage, "save_reconstructed_wave": False, "save_predicted_tokens": False}
    evaluated = {"evaluate_every": 1, "evaluate_samples": 3}
    if stage == "semantic":
        evaluated["evaluate_coarse_path"] = str(stack.weights("coarse"))

    def train(name: str, **keys: Any) -> list[dict]:
        words = [*configs(**{f"{stage}_trainer_cfg": section | keys}), *tokenizers(stack)]
        run(f"train_{stage}_stage", "--results_folder", tmp_path / name, "--log_with", "none", *words)
        return log(tmp_path / name)

    lines = train("evaluated", **evaluated)
    found = [line for line in lines if "generated_fad" in line]
    assert [line["step"] for line in found] == [1, 2]
    for line in found:
        assert line["generated_fad"] > 0
        assert -1 <= line["generated_clap_score"] <= 1
        assert -1 <= line["generated_clap_score_of_true"] <= 1
    if stage == "coarse":
        plain = [line["loss"] for line in train("plain") if "loss" in line]
        assert plain == [line["loss"] for line in lines if "loss" in line]


def test_an_evaluation_without_what_it_takes_is_refused(
    tmp_path: Path, configs: Configs, stack: Stack, tokens: Path
) -> None:
    section = STAGE | {"stage": "coarse", "evaluate_every": 1, "use_preprocessed_data": True, "folder": str(tokens)}
    with pytest.raises(UserError, match="missing --rvq_path, which evaluate_every takes"):
        run("train_coarse_stage", "--results_folder", tmp_path / "a", *configs(coarse_trainer_cfg=section))
    words = configs(semantic_trainer_cfg=section | {"stage": "semantic"})
    with pytest.raises(UserError, match="semantic stage alone cannot generate sound; name an evaluate_coarse_path"):
        run("train_semantic_stage", "--results_folder", tmp_path / "b", *words)
