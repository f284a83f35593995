"""The bias of attention by the time between a token and its conditioning."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation import CPU, random_ids, small_config

from open_musiclm.checkpoints import save_weights
from open_musiclm.errors import UserError
from open_musiclm.models.flat_layout import position_times
from open_musiclm.models.stages import build_stage, load_stage, load_stage_to_train_on
from open_musiclm.tokens import TokenStream


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12))
def test_conditioning_of_the_moment_that_is_asked_for_is_nearest(
    ratio: int, quantizers: int, known_quantizers: int, steps: int
) -> None:
    known = TokenStream("semantic", 9, known_quantizers, 25)
    asked = TokenStream("coarse", 9, quantizers, 25 * ratio)
    before, after = steps * known_quantizers, steps * ratio * quantizers
    times = position_times((TokenStream("clap", 9, 2, None), known, asked), (2, before, after), CPU)
    positions = 3 + before + 1 + after + 1
    between = times.frames_between(torch.arange(positions), positions)
    assert between[: 3 + before + 1].eq(0).all()  # conditioning asks for nothing
    assert between[:, :4].eq(0).all()  # CLAP's tokens and the start vectors are of no moment
    assert between[:, 3 + before + 1 :].eq(0).all()  # nor does the own history count
    # the position before a token asks for it
    wanted = between[3 + before + 1 :, 4 : 4 + before].unflatten(1, (steps, known_quantizers))[:after]
    for number, row in enumerate(wanted):
        step = number // quantizers
        assert row.amax(dim=1).argmin() == step // ratio
        assert row[step // ratio].max() <= 0.5


@torch.no_grad()
def test_a_steep_bias_leaves_only_the_conditioning_of_the_moment() -> None:
    torch.manual_seed(0)
    stage = build_stage("coarse", small_config(conditioning_time_bias=True, use_conv_ff=False, depth=1)).eval()
    time_bias = stage.layout.transformer.time_bias
    assert time_bias is not None
    time_bias.log_slopes.fill_(math.log(40.0))
    ids = [random_ids(stage, 0, 1, 1), random_ids(stage, 1, 1, 10), random_ids(stage, 2, 1, 15)]  # 50 Hz, 75 Hz
    other = [ids[0], ids[1].clone(), ids[2]]
    other[1][:, 4] = (ids[1][:, 4] + 1) % 13
    first, second = (stage.training_logits(given, [False] * 3)[0][-1] for given in (ids, other))
    assert first is not None
    assert second is not None
    changed = (first - second)[0, :30].abs().amax(dim=-1).unflatten(0, (15, 2)).amax(dim=1)
    # From 80 to 100 ms: only the frame that begins at 80 ms has its middle nearer to this token's than to others'.
    assert changed[6] > 1e-5
    assert (changed > 1e-4 * changed[6]).nonzero().flatten().tolist() == [6]


def test_weights_without_it_are_refused_for_generation_and_get_it_for_training(tmp_path: Path) -> None:
    old = build_stage("coarse", small_config())
    save_weights(tmp_path / "coarse.safetensors", "coarse", old.layout.state_dict(), small_config())
    config = small_config(conditioning_time_bias=True, condition_dropout=0.2)
    with pytest.raises(UserError, match="conditioning_time_bias False there, True here"):
        load_stage(tmp_path, "coarse", config, CPU)
    stage = load_stage_to_train_on(tmp_path, "coarse", config, CPU)
    found = stage.layout.state_dict()
    slopes = found.pop("transformer.time_bias.log_slopes")
    assert found.keys() == old.layout.state_dict().keys()
    assert all(torch.equal(found[name], weight) for name, weight in old.layout.state_dict().items())
    assert slopes.diff().lt(0).all()
    assert stage.condition_dropout == 0.2  # as the config says, whatever the weights were trained with
    assert load_stage(tmp_path, "coarse", small_config(condition_dropout=0.2), CPU).condition_dropout == 0.0
    with pytest.raises(UserError, match="depth 2 there, 3 here"):
        load_stage_to_train_on(tmp_path, "coarse", small_config(conditioning_time_bias=True, depth=3), CPU)


def test_training_goes_on_from_learned_slopes(tmp_path: Path) -> None:
    config = small_config(conditioning_time_bias=True)
    stage = build_stage("fine", config)
    time_bias = stage.layout.transformer.time_bias
    assert time_bias is not None
    torch.nn.init.constant_(time_bias.log_slopes, 0.7)
    save_weights(tmp_path / "fine.safetensors", "fine", stage.layout.state_dict(), config)
    again = load_stage_to_train_on(tmp_path, "fine", config, CPU).layout.transformer.time_bias
    assert again is not None
    assert torch.equal(again.log_slopes, time_bias.log_slopes)
