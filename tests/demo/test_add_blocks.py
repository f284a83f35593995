"""A stage with copied blocks computes what it did, and can be trained on."""

import subprocess
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY

from open_musiclm.checkpoints import load_weights
from open_musiclm.config import StageName, load_model_config
from open_musiclm.models.stages import Stage, load_stage

CPU = torch.device("cpu")
BUNDLE = DEMO / "bundle"


def add_blocks(stage: StageName, output: Path, *after: int) -> subprocess.CompletedProcess[str]:
    words = ["--stage", stage, "--model_config", BUNDLE / "model_config.json", "--output", output]
    return forks.run([REPOSITORY / "demo/add_blocks.py", BUNDLE / f"{stage}.safetensors", *words, "--after", *after])


def random_ids(stage: Stage) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(stream.codebook_size, (2, frames, stream.quantizers), generator=generator)
        for stream, frames in zip(stage.sequences, (1, 50, 50)[: len(stage.sequences)], strict=True)
    ]


@pytest.mark.parametrize(("name", "after"), [("semantic", (3, 8)), ("coarse", (1,))])
def test_a_deeper_stage_computes_the_same_and_learns(tmp_path: Path, name: StageName, after: tuple[int, ...]) -> None:
    output = tmp_path / "deeper.safetensors"
    done = add_blocks(name, output, *after)
    assert done.returncode == 0, done.stderr
    config = load_weights(output, name).model_config
    assert config is not None
    shallow = load_model_config(BUNDLE / "model_config.json").stage(name).depth
    assert config.stage(name).depth == shallow + len(after)
    assert f"{name}_cfg.depth {shallow + len(after)}" in done.stdout
    deeper = load_stage(output, name, config, CPU)
    before = load_stage(BUNDLE / f"{name}.safetensors", name, load_model_config(BUNDLE / "model_config.json"), CPU)
    ids = random_ids(before)
    expected, found = before(ids), deeper(ids)
    torch.testing.assert_close(found.loss, expected.loss)
    found.loss.backward()
    for number in after:  # counted among the old blocks; each copy before moves the next one
        place = number + after.index(number)
        gradients = [
            parameter.grad
            for key, parameter in deeper.layout.named_parameters()
            if key.startswith(f"transformer.blocks.{place}.") and key.endswith("to_output.weight")
        ]
        assert len(gradients) == 2
        assert all(gradient is not None and bool(gradient.any()) for gradient in gradients)


def test_a_block_that_is_not_there(tmp_path: Path) -> None:
    done = add_blocks("coarse", tmp_path / "deeper.safetensors", 7)
    assert done.returncode == 2
    assert "--after 7: the coarse stage has 6 blocks" in done.stderr
    assert not (tmp_path / "deeper.safetensors").exists()
