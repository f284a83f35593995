"""The mean of a stage's weights: what it is, what the script says, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from helpers.small_stack import Stack
from safetensors.torch import load_file
from test_trainers import run

from open_musiclm.checkpoints import load_weights, save_weights
from open_musiclm.config import model_config_from_json
from open_musiclm.errors import UserError
from open_musiclm.models.stages import build_stage


def other_weights(stack: Stack, path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_weights(path, "semantic", build_stage("semantic", stack.config).layout.state_dict(), stack.config)
    return path


def average(stack: Stack, output: Path, *words: object) -> dict[str, torch.Tensor]:
    run("average_weights", "--model_config", stack.model_config, "--stage", "semantic", "--output", output, *words)
    return load_file(output)


def test_it_is_the_weighted_mean(tmp_path: Path, stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [other_weights(stack, tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]
    one, two, three = (load_file(path) for path in paths)
    # 1, 0 and 3 mean .25, 0 and .75
    mean = average(stack, tmp_path / "mean.safetensors", *paths, "--weights", 1, 0, 3)
    assert "--semantic_path" in capsys.readouterr().out
    equal = average(stack, tmp_path / "equal.safetensors", *paths)
    assert mean.keys() == one.keys()
    for key in one:
        torch.testing.assert_close(mean[key], 0.25 * one[key] + 0.75 * three[key])
        torch.testing.assert_close(equal[key], (one[key] + two[key] + three[key]) / 3)


def test_the_mean_of_equal_weights_generates_the_same(tmp_path: Path, stack: Stack) -> None:
    mean = tmp_path / "mean.safetensors"
    average(stack, mean, stack.folder, stack.weights("semantic"), "--weights", 0.5, 0.5)
    assert all(torch.equal(x, load_file(stack.weights("semantic"))[key]) for key, x in load_file(mean).items())


def test_guidance_needs_condition_dropout_in_all_of_them(tmp_path: Path, stack: Stack) -> None:
    """The file has the config that the weights were trained with, not that of the command."""
    shares = {}
    for share in (0.1, 0.2, 0.0):
        section = stack.config.semantic_cfg.model_copy(update={"condition_dropout": share})
        config = stack.config.model_copy(update={"semantic_cfg": section})
        shares[share] = tmp_path / f"{share}.safetensors"
        save_weights(shares[share], "semantic", build_stage("semantic", config).layout.state_dict(), config)
    for number, (paths, least) in enumerate([((0.2, 0.1), 0.1), ((0.2, 0.0), 0.0)]):
        output = tmp_path / f"mean{number}.safetensors"
        average(stack, output, *(shares[share] for share in paths))
        found = load_weights(output, "semantic").model_config
        assert found is not None
        assert found.semantic_cfg.condition_dropout == least


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{folder}",), "two checkpoints or more; found 1"),
        (("{folder}", "{folder}", "--weights", 1), "--weights: found 1 for 2"),
        (("{folder}", "{folder}", "--weights", 0, 0), "--weights: all are 0"),
        (("{folder}", "{missing}"), "missing: no such checkpoint"),
        (("{folder}", "{deeper}"), "depth"),
    ],
)
def test_what_cannot_be_averaged(tmp_path: Path, stack: Stack, words: tuple[object, ...], message: str) -> None:
    text = json.loads(stack.config.model_dump_json())
    text["semantic_cfg"]["depth"] += 1
    config = model_config_from_json(json.dumps(text), "test")
    deeper = tmp_path / "deeper.safetensors"
    save_weights(deeper, "semantic", build_stage("semantic", config).layout.state_dict(), config)
    places = {"folder": stack.folder, "missing": tmp_path / "missing", "deeper": deeper}
    with pytest.raises(UserError, match=message):
        average(stack, tmp_path / "mean.safetensors", *(str(word).format(**places) for word in words))
    assert not (tmp_path / "mean.safetensors").exists()


@pytest.mark.parametrize("name", ["mean.pt", "there.safetensors"])
def test_an_output_that_is_refused(tmp_path: Path, stack: Stack, name: str) -> None:
    (tmp_path / "there.safetensors").write_text("mine")
    with pytest.raises(UserError, match=rf"--output .*{name}: (already exists|expected a name)"):
        average(stack, tmp_path / name, stack.folder, stack.folder)
    assert (tmp_path / "there.safetensors").read_text() == "mine"
