"""Our own checkpoints: what is read back, and one clear line for a file that is cut short, foreign or does not fit."""

from pathlib import Path

import pytest
import torch
from helpers.small_stack import Stack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from open_musiclm.checkpoints import load_into, load_weights, save_weights
from open_musiclm.errors import UserError
from open_musiclm.models.stages import build_stage, load_stage

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_short_anywhere(tmp_path: Path, stack: Stack, share: float) -> None:
    content = stack.weights("semantic").read_bytes()
    path = tmp_path / "semantic.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="not a whole safetensors file") as error:
        load_weights(path, "semantic")
    assert "\n" not in str(error.value)


def test_equal_weights_are_equal_files(tmp_path: Path, stack: Stack) -> None:
    tensors = load_file(stack.weights("semantic"))
    for number in range(8):  # the order of safetensors' own metadata is random
        save_weights(tmp_path / f"{number}.safetensors", "semantic", tensors, stack.config)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert load_weights(tmp_path / "0.safetensors", "semantic").model_config.model_dump() == stack.config.model_dump()


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as content:
        return content.metadata()


@pytest.mark.parametrize("lacking", ["format", "kind", "model_config"])
def test_a_file_without_our_metadata(tmp_path: Path, stack: Stack, lacking: str) -> None:
    source, path = stack.weights("semantic"), tmp_path / "semantic.safetensors"
    metadata = {key: value for key, value in metadata_of(source).items() if key != lacking}
    save_file(load_file(source), path, metadata)
    with pytest.raises(UserError, match="not an open_musiclm checkpoint"):
        load_weights(path, "semantic")


def test_one_key_more_and_one_less_are_named_together(tmp_path: Path, stack: Stack) -> None:
    source, path = stack.weights("fine"), tmp_path / "fine.safetensors"
    tensors = load_file(source)
    tensors.pop("start_tokens.1")
    save_file({**tensors, "surplus": torch.zeros(1)}, path, metadata_of(source))
    stage = build_stage("fine", stack.config)
    with pytest.raises(UserError, match=r"missing start_tokens\.1; unexpected surplus"):
        load_into(stage.layout, load_weights(path, "fine"))


def test_another_architecture_names_the_keys(stack: Stack) -> None:
    other = stack.config.model_copy(update={"coarse_cfg": stack.config.coarse_cfg.model_copy(update={"heads": 4})})
    with pytest.raises(UserError, match="another coarse_cfg: heads 2 there, 4 here"):
        load_stage(stack.weights("coarse"), "coarse", other, CPU)
