"""Checkpoints that other trainers wrapped: read as those inside, and reported in one line on stderr."""

from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU, golden_config, golden_file, golden_settings
from helpers.small_stack import Stack
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from open_musiclm.checkpoints import load_weights
from open_musiclm.errors import UserError
from open_musiclm.models.stages import load_stage

WRAPPINGS = {
    "the section 'model'": lambda tensors: {"model": tensors, "optimizer": {"state": {}}, "step": 3},
    "the section 'state_dict'": lambda tensors: {"state_dict": tensors},
    "the section 'model' and the section 'state_dict'": lambda tensors: {"model": {"state_dict": tensors}},
    "the prefix 'module.'": lambda tensors: _prefixed(tensors, "module."),
    "the prefix '_orig_mod.'": lambda tensors: _prefixed(tensors, "_orig_mod."),
    "the section 'model' and the prefix '_orig_mod.module.'": lambda tensors: {
        "model": _prefixed(tensors, "_orig_mod.module.")
    },
    "the prefix '_orig_mod.' ": lambda tensors: {
        name.replace("transformer.", "transformer._orig_mod."): value for name, value in tensors.items()
    },
}


def _prefixed(tensors: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("wrappers", WRAPPINGS)
def test_a_wrapped_released_file(tmp_path: Path, capfd: pytest.CaptureFixture[str], wrappers: str) -> None:
    config = golden_config(golden_settings("semantic"))
    source, path = golden_file("semantic.transformer.pt"), tmp_path / "wrapped.pt"
    torch.save(WRAPPINGS[wrappers](torch.load(source, weights_only=True)), path)
    expected = load_stage(source, "semantic", config, CPU).state_dict()
    assert capfd.readouterr().err == ""
    loaded = load_stage(path, "semantic", config, CPU).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    assert capfd.readouterr().err == f"{path}: took the weights out of {wrappers.strip()}\n"


def test_prefixes_in_a_safetensors_file(tmp_path: Path, stack: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    source, path = stack.weights("coarse"), tmp_path / "coarse.safetensors"
    with safe_open(source, "pt") as content:
        metadata = content.metadata()
    save_file(_prefixed(load_file(source), "module."), path, metadata)
    assert load_weights(path, "coarse").tensors.keys() == load_file(source).keys()
    assert capfd.readouterr().err == f"{path}: took the weights out of the prefix 'module.'\n"


def test_one_weight_with_and_without_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "semantic.pt"
    torch.save({"module.start_tokens.1": torch.ones(2), "start_tokens.1": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"semantic\.pt: holds the same weights with and without the prefix 'module\.'"):
        load_weights(path, "semantic")


def test_an_empty_section_is_no_model(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "empty.pt")
    with pytest.raises(UserError, match=r"empty\.pt: holds no released weights"):
        load_weights(tmp_path / "empty.pt", "semantic")
