"""scripts/convert_checkpoint.py: what it writes, and what it never writes over."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.golden_cases import golden_file
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack
from safetensors.torch import load_file

from open_musiclm.checkpoints.bundle import convert
from open_musiclm.errors import UserError


def test_the_script_takes_overwrite(tmp_path: Path, stack: Stack) -> None:
    source, target = stack.weights("semantic"), tmp_path / "converted.safetensors"
    command = ["scripts/convert_checkpoint.py", str(source), "--kind", "semantic", "--output"]
    command += [str(target), "--model_config", str(stack.model_config)]
    target.write_bytes(b"mine")
    refused = forks.run(command, cwd=REPOSITORY)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--overwrite" in refused.stderr
    assert target.read_bytes() == b"mine"
    assert forks.run([*command, "--overwrite"], cwd=REPOSITORY).returncode == 0
    assert load_file(target).keys() == load_file(source).keys()


@pytest.mark.parametrize("how", ["itself", "a link to it", "another name of it", "its folder"])
def test_the_checkpoint_itself_is_never_replaced(tmp_path: Path, stack: Stack, how: str) -> None:
    source = Path(shutil.copy(stack.weights("semantic"), tmp_path))
    before = source.read_bytes()
    target = {"itself": source, "its folder": source}.get(how, tmp_path / "other.safetensors")
    if how == "a link to it":
        target.symlink_to(source)
    elif how == "another name of it":
        os.link(source, target)
    given = tmp_path if how == "its folder" else source
    with pytest.raises(UserError, match="this is the input checkpoint"):
        convert(given, "semantic", stack.config, target, overwrite=True)
    assert source.read_bytes() == before


def test_devices_pipes_and_folders_are_never_replaced(tmp_path: Path, stack: Stack) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for target in (Path("/dev/null"), tmp_path / "pipe", tmp_path, tmp_path / "dangling"):
        with pytest.raises(UserError, match="already exists and is not a file; name another --output"):
            convert(stack.weights("semantic"), "semantic", stack.config, target, overwrite=True)
    assert Path("/dev/null").is_char_device()


def test_the_output_is_named_as_what_it_is(tmp_path: Path, stack: Stack) -> None:
    with pytest.raises(UserError, match=r"semantic\.pt: expected a name that ends in \.safetensors"):
        convert(stack.weights("semantic"), "semantic", stack.config, tmp_path / "semantic.pt")


def test_the_current_folder_is_converted(tmp_path: Path, stack: Stack) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(stack.weights("semantic"), folder)
    command = [REPOSITORY / "scripts/convert_checkpoint.py", ".", "--kind", "semantic"]
    assert forks.run([*command, "--model_config", stack.model_config], cwd=folder).returncode == 0
    assert load_file(tmp_path / "run.safetensors").keys() == load_file(folder / "semantic.safetensors").keys()


def test_nan_is_not_converted(tmp_path: Path, stack: Stack) -> None:
    tensors = torch.load(golden_file("semantic.transformer.pt"), weights_only=True)
    tensors["start_tokens.1"][3] = float("nan")
    torch.save(tensors, tmp_path / "semantic.pt")
    with pytest.raises(UserError, match=r"semantic\.pt: 'start_tokens\.1' holds NaN or infinity"):
        convert(tmp_path / "semantic.pt", "semantic", stack.config, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
