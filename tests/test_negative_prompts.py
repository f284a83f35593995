"""Negative prompts: what guidance leads away from, instead of nothing."""

import json
from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU
from helpers.small_stack import Stack
from test_frames_layout import frames_stage
from test_frames_layout import ids_of as frames_ids
from test_generation import random_ids, small_config

from open_musiclm import GenerationConfig, MusicLM
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling, gumbel_noise, sample, sample_rng
from open_musiclm.generation.generate_files import generate_files
from open_musiclm.generation.session import requests_of
from open_musiclm.models.stages import Stage, build_stage

PROMPT, NEGATIVE = "slow piano", "a choir at 5:00"  # of different tokens in the small CLAP
GUIDED = GenerationConfig(duration=0.4, cfg_scale=20.0, return_coarse_wave=True, num_samples=1)


@pytest.fixture(scope="module")
def musiclm(stack: Stack) -> MusicLM:
    """Its stages say that they were trained for guidance."""
    model = stack.musiclm(("semantic", "coarse"))
    for stage in model.stages.values():
        stage.condition_dropout = 0.1
    return model


def semantic(musiclm: MusicLM, config: GenerationConfig, prompt: str = PROMPT) -> torch.Tensor:
    session = musiclm.session(requests_of(prompt, 3), config)
    return session.semantic_tokens(session.prompt_tokens(None))


def flat_stage() -> tuple[Stage, list[torch.Tensor]]:
    torch.manual_seed(2)
    stage = build_stage("coarse", small_config(condition_dropout=0.1)).eval()
    return stage, [random_ids(stage, index, 2, time=8 if index == 2 else 5) for index in range(3)]


def frames_stage_and_ids() -> tuple[Stage, list[torch.Tensor]]:
    stage = frames_stage("coarse", condition_dropout=0.1)
    return stage, frames_ids(stage, 2, 8)


def made(stage: Stage, ids: list[torch.Tensor], sampling: Sampling, negative: torch.Tensor | None) -> torch.Tensor:
    rngs = [sample_rng(4, "p", number, "coarse") for number in range(2)]
    return stage_generator(stage).generate(ids[:2], ids[2][:, :2], 6, sampling, rngs, lambda: None, negative)


def test_its_tokens_stand_in_the_second_pass_and_all_else_stays() -> None:
    """The formula, with whole passes of the training's forward: negative + scale * (prompt - negative)."""
    stage, ids = flat_stage()
    negative = random_ids(stage, 0, 2, 1)
    tokens = made(stage, ids, Sampling(0.8, cfg_scale=2.5), negative).flatten(1)
    sequence = torch.cat((ids[2][:, :2].flatten(1), tokens), dim=1).unflatten(1, (-1, stage.predicted.quantizers))
    with torch.no_grad():
        own, other = (
            stage.training_logits([clap, ids[1], sequence], [False] * 3)[0][-1] for clap in (ids[0], negative)
        )
    assert own is not None
    assert other is not None
    logits = other + 2.5 * (own - other)
    rngs = [sample_rng(4, "p", number, "coarse") for number in range(2)]
    first = 2 * stage.predicted.quantizers
    noise = gumbel_noise(rngs, tokens.shape[1], stage.predicted.codebook_size + 1, CPU)
    for number, draw in enumerate(noise):
        expected = sample(logits[:, first + number, :-1], draw[:, :-1], Sampling(0.8))
        assert torch.equal(tokens[:, number], expected)


@pytest.mark.parametrize("stage_and_ids", [flat_stage, frames_stage_and_ids])
def test_equal_to_the_prompt_it_cancels_guidance(stage_and_ids) -> None:
    stage, ids = stage_and_ids()
    plain = made(stage, ids, Sampling(0.8), None)
    guided = Sampling(0.8, cfg_scale=5.0)
    assert torch.equal(made(stage, ids, guided, ids[0]), plain)
    assert not torch.equal(made(stage, ids, guided, None), plain)
    assert not torch.equal(made(stage, ids, guided, random_ids(stage, 0, 2, 1)), plain)


def test_the_prompt_as_negative_prompt_cancels_guidance_in_the_tokens(musiclm: MusicLM) -> None:
    plain = semantic(musiclm, GUIDED.updated({"cfg_scale": 1.0}))
    assert torch.equal(semantic(musiclm, GUIDED.updated({"negative_prompt": PROMPT})), plain)
    led_away = semantic(musiclm, GUIDED.updated({"negative_prompt": NEGATIVE}))
    assert not torch.equal(led_away, plain)
    assert not torch.equal(led_away, semantic(musiclm, GUIDED))


def test_the_prompt_as_negative_prompt_cancels_guidance_in_the_sound(musiclm: MusicLM) -> None:
    (plain,) = musiclm.generate(PROMPT, config=GUIDED.updated({"cfg_scale": 1.0}))
    (cancelled,) = musiclm.generate(PROMPT, config=GUIDED.updated({"negative_prompt": PROMPT}))
    (led_away,) = musiclm.generate(PROMPT, config=GUIDED.updated({"negative_prompt": NEGATIVE}))
    assert torch.equal(cancelled, plain)
    assert not torch.equal(led_away, plain)


def test_the_json_beside_a_wave_has_the_negative_prompt(stack: Stack, tmp_path: Path) -> None:
    model = stack.musiclm(("semantic", "coarse"))
    for stage in model.stages.values():
        stage.condition_dropout = 0.1
    model.generation_config = GUIDED.updated({"negative_prompt": NEGATIVE})
    ((written,),) = generate_files(model, [PROMPT], tmp_path, {})
    assert json.loads(written.path.with_suffix(".json").read_text())["settings"]["negative_prompt"] == NEGATIVE


@pytest.mark.parametrize("scale", [1.0, 0.5, [1.0, 1.0, 1.0]])
def test_without_guidance_it_is_refused(scale: float | list[float]) -> None:
    with pytest.raises(UserError, match=r"negative_prompt .a choir at 5:00. needs guidance: set a cfg_scale above 1"):
        GenerationConfig(negative_prompt=NEGATIVE, cfg_scale=scale)
    assert GenerationConfig(negative_prompt=NEGATIVE, cfg_scale=[1.0, 2.0, 1.0]).negative_prompt == NEGATIVE


@pytest.mark.parametrize("text", ["", " ", "x" * 10_001, "a\ud800"])
def test_invalid_negative_prompts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="negative_prompt"):
        GenerationConfig(negative_prompt=text, cfg_scale=3.0)


def test_a_model_that_knows_no_guidance_refuses_it(stack: Stack) -> None:
    config = GUIDED.updated({"negative_prompt": NEGATIVE})
    with pytest.raises(UserError, match="condition_dropout"):
        stack.musiclm(("semantic", "coarse")).generate(PROMPT, config=config)
