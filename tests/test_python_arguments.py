"""What Python callers may give: everything else is refused at once, by an error that names the argument."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

from open_musiclm import GenerationConfig
from open_musiclm.audio import Sound, find_sounds, read_sound
from open_musiclm.config import load_generation_config, load_model_config, load_training_config
from open_musiclm.errors import UserError
from open_musiclm.generation.checks import check_config, check_count, check_segment, check_sound, check_stages
from open_musiclm.generation.output import Provenance, write_generated
from open_musiclm.generation.paths import ModelPaths
from open_musiclm.generation.prompts.prompt_checks import check_prompts

WAVE = torch.zeros(24000)


def sound(wave: Any, sample_hz: Any) -> Sound:
    """A sound whose fields nobody has checked: while tests run jaxtyping checks them, users have no such help."""
    made = object.__new__(Sound)
    object.__setattr__(made, "wave", wave)
    object.__setattr__(made, "sample_hz", sample_hz)
    return made


@pytest.mark.parametrize(
    "prompts", [[1], 1, None, b"a tune", {"a tune": 1}, [], "", [" "], ["a tune", None], "\udcff", "a" * 20000]
)
def test_prompts_are_texts(prompts: Any) -> None:
    with pytest.raises(UserError, match="prompt"):
        check_prompts(prompts)


def test_prompts_may_come_in_many_ways() -> None:
    assert check_prompts("a tune") == ["a tune"]
    assert check_prompts(text for text in ("a", "b")) == ["a", "b"]
    assert check_prompts(("a",)) == ["a"]


@pytest.mark.parametrize("count", [0, -1, 1.0, "2", None, True, 10**9, 10**5000], ids=list("abcdefgh"))
def test_counts_are_whole_numbers_within_bounds(count: Any) -> None:
    with pytest.raises(UserError, match=r"^num_samples"):
        check_count("num_samples", count)


def test_counts_may_be_of_numpy() -> None:
    assert check_count("num_samples", np.int64(3)) == 3


@pytest.mark.parametrize("duration", ["4", True, [4], float("nan"), float("inf"), 0, -1.0, 10**400], ids=str)
def test_durations_are_numbers_above_0(duration: Any) -> None:
    with pytest.raises(UserError, match=r"^duration"):
        check_config(None, duration, GenerationConfig())


def test_durations_may_be_of_numpy() -> None:
    assert check_config(None, np.float32(2.5), GenerationConfig()).duration == 2.5


@pytest.mark.parametrize("config", [{}, "x", 1])
def test_the_config_is_a_generation_config(config: Any) -> None:
    with pytest.raises(UserError, match=r"^config: expected a GenerationConfig"):
        check_config(config, None, GenerationConfig())


@pytest.mark.parametrize(
    "fields",
    [
        {"num_samples": 0},
        {"max_batch_size": 0},
        {"top_k": "3"},
        {"durration": 3.0},
        {"loudness": 3.0},
        {"cfg_scale": [1.0]},
        {"self": 1},
        {"semantic_temperature": 1e-45},
        {"duration": 1e-9},
        {"duration": 1e9},
        {"duration": 1e308},
        {"seed": 2**70},
        {"top_k": 10**5000},
        {"cfg_scale": 1e40},
        {"cfg_scale": [1.0, 2.0, float("nan")]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_wrong_fields_of_a_generation_config_are_named(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(UserError, match=f"GenerationConfig: {name}"):
        GenerationConfig(**fields)


def test_paths_may_be_texts(stack: Stack, tmp_path: Path) -> None:
    assert load_model_config(str(stack.model_config)) == load_model_config(stack.model_config)
    training = REPOSITORY / "demo" / "configs" / "training.json"
    assert load_training_config(str(training)) == load_training_config(training)
    path = write_generated(str(tmp_path), "a", 0.1 * WAVE.cos(), 24000, Provenance("a", 0, {}, GenerationConfig(), {}))
    assert read_sound(str(path)).seconds == 1
    assert find_sounds(str(tmp_path)) == [path]
    parts = ModelPaths(model_config=str(stack.model_config), rvq="a", kmeans="b")
    assert parts.resolved([]) == {"model_config": stack.model_config, "rvq_path": Path("a"), "kmeans_path": Path("b")}


def test_wrong_fields_of_a_file_are_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text('{"num_samples": 0}')
    with pytest.raises(UserError, match=f"^{path}: num_samples"):
        load_generation_config(str(tmp_path))


@pytest.mark.parametrize(
    ("wave", "sample_hz", "named"),
    [
        (torch.zeros(2, 24000), 24000, "mono"),
        (np.zeros(24000), 24000, "tensor"),
        (torch.zeros(24000, dtype=torch.int16), 24000, "floats"),
        (torch.full((24000,), float("nan")), 24000, "NaN"),
        (torch.zeros(1), 24000, "samples long"),
        (torch.zeros(0), 24000, "samples long"),
        (WAVE, -24000, "sample_hz"),
        (WAVE, 0, "sample_hz"),
        (WAVE, 24000.0, "sample_hz"),
        (WAVE, 10**9, "sample_hz"),
    ],
)
def test_a_sound_is_a_mono_wave_at_a_rate(wave: Any, sample_hz: Any, named: str) -> None:
    with pytest.raises(UserError, match=f"^audio_prompt: .*{named}"):
        check_sound("audio_prompt", sound(wave, sample_hz))


def test_a_path_is_no_sound() -> None:
    with pytest.raises(UserError, match="audio_prompt: expected a Sound"):
        check_sound("audio_prompt", "a.wav")


def test_stages_that_are_not_loaded_are_named() -> None:
    check_stages(["semantic", "coarse"], {"semantic", "coarse"})
    with pytest.raises(UserError, match=r"the fine stage is not loaded.*return_coarse_wave"):
        check_stages(["semantic", "coarse", "fine"], {"semantic", "coarse"})


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 1), (2, 1), (1, 1), (0, 9), (1, 1.05), ("1", 2), (0, float("nan")), (True, 2), (0, None)]
)
def test_segments_are_times_of_the_sound(start: Any, end: Any) -> None:
    with pytest.raises(UserError, match=r"^(seconds|start|end)"):
        check_segment(Sound(torch.zeros(72000), 24000), start, end)


def test_a_segment_may_end_with_the_sound() -> None:
    check_segment(Sound(torch.zeros(72000), 24000), 2, 3.004)
