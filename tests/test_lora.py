"""LoRA: only the adapter is trained and saved, resuming is exact, and inference takes it, merged or not."""

import json
from pathlib import Path

import pytest
import torch
from helpers.paths import SCRIPTS
from helpers.processes import run_script
from helpers.small_adapter import random_adapter
from helpers.small_stack import Stack, build_stack
from safetensors.torch import load_file
from test_trainers import run, tokenizers

from open_musiclm import cli
from open_musiclm.checkpoints import step_folder
from open_musiclm.checkpoints.adapters import Adapter, load_adapter
from open_musiclm.config.lora import LINEAR_TARGETS
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.paths import AdapterPath
from open_musiclm.models.lora import merge_adapters
from open_musiclm.models.stages import Stage, load_stage

CPU = torch.device("cpu")
SECTION = {"batch_size": 2, "valid_frac": 0.34, "num_workers": 0, "lr": 0.01, "use_preprocessed_data": True}
SECTION |= {"save_results_every": 2, "save_model_every": 2, "save_reconstructed_wave": False}


@pytest.fixture(scope="module")
def frames_stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return build_stack(tmp_path_factory.mktemp("frames"), "frames")


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def train(
    stack: Stack,
    tokens: Path,
    folder: Path,
    *words: object,
    stage: str = "semantic",
    processes: int = 1,
    **section: object,
) -> None:
    """Two steps of an adapter of the stack's stage, unless told otherwise."""
    values = {"stage": stage, "folder": str(tokens), "num_train_steps": 2, **SECTION, **section}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({f"{stage}_trainer_cfg": values}))
    configs = ["--model_config", stack.model_config, "--training_config", path, "--results_folder", folder]
    words = (*configs, "--log_with", "none", *tokenizers(stack), *words)
    if processes == 1:
        run(f"train_{stage}_stage", *words)
    else:
        run_script(SCRIPTS / f"train_{stage}_stage.py", [*words, "--device", "cpu"], processes)


def curve(folder: Path, key: str = "loss") -> list[float]:
    return [line[key] for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if key in line]


def logits(stage: Stage) -> torch.Tensor:
    torch.manual_seed(5)
    clap, *others = stage.sequences
    ids = [torch.randint(10, (2, 1, clap.quantizers)), *(torch.randint(10, (2, 9, s.quantizers)) for s in others)]
    found = stage.training_logits(ids, [False] * (len(ids) - 1) + [True])[0][-1]
    assert found is not None
    return found


@pytest.mark.parametrize("layout", ["flat", "frames"])
@pytest.mark.parametrize("targets", [LINEAR_TARGETS, ("to_query", "embeddings")])
def test_merged_equals_unmerged(
    tmp_path: Path, stack: Stack, frames_stack: Stack, layout: str, targets: tuple[str, ...]
) -> None:
    used = stack if layout == "flat" else frames_stack
    stage, adapter = random_adapter(used, "coarse", tmp_path, alpha=6.0, targets=list(targets))
    base = load_stage(used.weights("coarse"), "coarse", used.config, CPU)
    plain = logits(base)
    merge_adapters(base, [(load_adapter(adapter.path), 1.0)], "base")
    assert (logits(base) - logits(stage)).abs().max() < 1e-5
    assert (logits(base) - plain).abs().max() > 1e-2


def test_several_adapters_add_up(tmp_path: Path, stack: Stack) -> None:
    (tmp_path / "a").mkdir()
    _, adapter = random_adapter(stack, "semantic", tmp_path / "a")
    once, split = (load_stage(stack.weights("semantic"), "semantic", stack.config, CPU) for _ in range(2))
    merge_adapters(once, [(adapter, 0.7)], "base")
    merge_adapters(split, [(adapter, 0.9), (adapter, -0.2)], "base")
    assert (logits(once) - logits(split)).abs().max() < 1e-5


@pytest.mark.parametrize(("stage", "layout"), [("semantic", "flat"), ("coarse", "frames"), ("fine", "flat")])
def test_only_the_adapter_is_trained_and_resumed_exactly(
    tmp_path: Path, stack: Stack, frames_stack: Stack, tokens: Path, stage: str, layout: str
) -> None:
    used = frames_stack if layout == "frames" else stack
    base = ["--fine_tune_from", used.folder]
    lora = {"lora": {"rank": 2, "dropout": 0.2}, "ema_decay": 0.9, "stage": stage}
    train(used, tokens, tmp_path / "whole", *base, num_train_steps=4, **lora)
    train(used, tokens, tmp_path / "halves", *base, num_train_steps=2, **lora)
    before = load_file(used.weights(stage))
    end = ["--continue_from_dir", tmp_path / "halves"]
    with pytest.raises(UserError, match="holds an adapter; resume with --lora_rank"):
        train(used, tokens, tmp_path / "halves", *end, num_train_steps=4, stage=stage)
    train(used, tokens, tmp_path / "halves", *end, num_train_steps=4, **lora)
    assert curve(tmp_path / "halves") == curve(tmp_path / "whole")
    whole, halves = (step_folder(tmp_path / name, 4) for name in ("whole", "halves"))
    assert not (whole / f"{stage}.safetensors").exists()
    found = [load_file(folder / f"{stage}_adapter.safetensors") for folder in (whole, halves)]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(tensor.abs().max() > 0 for name, tensor in found[0].items() if "lora_B" in name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_file(used.weights(stage)).items())


def test_generation_takes_adapters(tmp_path: Path, stack: Stack) -> None:
    _, adapter = random_adapter(stack, "semantic", tmp_path)
    parser = cli.parser("")
    cli.add_model_arguments(parser)

    def wave(*words: object) -> torch.Tensor:
        arguments = parser.parse_args([*stack.arguments(), "--device", "cpu", *map(str, words)])
        return cli.load_model(arguments)[0].generate("prompt", 0.5)[0]

    merged = tmp_path / "merged" / "semantic.safetensors"
    base = ["--model_config", stack.model_config, "--stage", "semantic", "--base_path", stack.folder]
    run("merge_adapter", *base, "--adapter_path", adapter.path, "--output", merged)
    adapted, plain = wave("--adapter_path", adapter.path), wave()
    assert not torch.equal(adapted, plain)
    assert torch.equal(adapted, wave("--semantic_path", merged))
    assert torch.equal(plain, wave("--adapter_path", tmp_path, "--adapter_weight", 0))
    with pytest.raises(UserError, match=r"made for other weights than .*merged.*which was base"):
        wave("--semantic_path", merged, "--adapter_path", adapter.path)
    with pytest.raises(UserError, match=r"--adapter_weight: given 2 times, and --adapter_path 1 times"):
        wave("--adapter_path", adapter.path, "--adapter_weight", 1, "--adapter_weight", 2)


def test_a_bundle_brings_adapters(tmp_path: Path, stack: Stack) -> None:
    _, adapter = random_adapter(stack, "coarse", tmp_path)
    bundle = tmp_path / "bundle"
    words = ["--adapter_path", adapter.path, "--adapter_weight", "0.5"]
    run("bundle", "--results_folder", bundle, *stack.arguments(), *words)

    def wave(adapters: list[AdapterPath] | None) -> torch.Tensor:
        return MusicLM.from_pretrained(bundle, "cpu", adapters=adapters).generate("prompt", 0.5)[0]

    assert torch.equal(wave(None), wave([AdapterPath(adapter.path, 0.5)]))
    assert torch.equal(wave(None), wave([AdapterPath(bundle / "adapters", 1.0)]))  # by its path too
    packed = ["--adapter_path", bundle / "adapters"]
    run("bundle", "--results_folder", tmp_path / "again", *stack.arguments(), *packed)
    assert json.loads((tmp_path / "again/adapters/weights.json").read_text()) == {"0_coarse_adapter.safetensors": 0.5}
    assert not torch.equal(wave(None), wave([]))


def test_wrong_adapters_are_refused(tmp_path: Path, stack: Stack, frames_stack: Stack, tokens: Path) -> None:
    _, adapter = random_adapter(stack, "coarse", tmp_path)
    coarse = load_stage(stack.weights("coarse"), "coarse", stack.config, CPU)
    semantic = load_stage(stack.weights("semantic"), "semantic", stack.config, CPU)
    with pytest.raises(UserError, match=r"an adapter of the coarse stage; BASE is the semantic stage"):
        merge_adapters(semantic, [(adapter, 1.0)], "BASE")
    other = load_stage(frames_stack.weights("coarse"), "coarse", frames_stack.config, CPU)
    with pytest.raises(UserError, match="made for other weights than BASE"):
        merge_adapters(other, [(adapter, 1.0)], "BASE")
    narrow = adapter.tensors | {name: x[:, :-1] for name, x in adapter.tensors.items() if "to_query.lora_A" in name}
    with pytest.raises(UserError, match=r"another shape than BASE: .*to_query.lora_A.weight is \[4, 31\]"):
        merge_adapters(coarse, [(Adapter(**{**vars(adapter), "tensors": narrow}), 1.0)], "BASE")
    with pytest.raises(UserError, match=r"not an adapter of open_musiclm .* it holds a whole stage"):
        load_adapter(stack.weights("coarse"))
    with pytest.raises(UserError, match="an adapter, not whole weights"):
        load_stage(adapter.path, "coarse", stack.config, CPU)
    with pytest.raises(UserError, match="an adapter needs weights to adapt; name them with --fine_tune_from"):
        train(stack, tokens, tmp_path / "run", "--lora_rank", 4)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_two_processes_train_the_same_adapter(
    tmp_path: Path, frames_stack: Stack, tokens: Path, dropout: float
) -> None:
    """What is random belongs to the example. Adam makes much of rounding where gradients are nearly zero, hence the
    tolerance of later steps."""
    lora = {"lora": {"rank": 2, "dropout": dropout}, "stage": "coarse", "ema_decay": 0.9, "precision": "float32"}
    base = ["--fine_tune_from", frames_stack.folder]
    train(frames_stack, tokens, tmp_path / "one", *base, **lora, batch_size=4, num_train_steps=4)
    train(frames_stack, tokens, tmp_path / "two", *base, processes=2, **lora, batch_size=2, num_train_steps=4)
    one, two = curve(tmp_path / "one", "loss"), curve(tmp_path / "two", "loss")
    assert two[:2] == pytest.approx(one[:2], abs=5e-5)  # another choice of dropout: 8e-4
    assert two == pytest.approx(one, abs=2e-3)
    assert (step_folder(tmp_path / "two", 4) / "coarse_adapter.safetensors").exists()
