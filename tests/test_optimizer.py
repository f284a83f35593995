"""The optimizer: its schedule, updates that are not finite, weight decay."""

import math

import pytest
import torch
from accelerate import Accelerator
from helpers.small_training import trainer_config
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from open_musiclm.training.optimizer import Optimizer, Schedule, parameter_groups


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_the_rate_rises_in_a_line_and_stays(warm_up: int, step: int) -> None:
    assert Schedule(2.0, warm_up, 1.0, 10_000).at(step) == pytest.approx(2 * min((step + 1) / warm_up, 1))
    assert Schedule(2.0, 0, 1.0, 10_000).at(step) == 2


@given(st.floats(0, 0.99), st.integers(2, 10_000))
def test_the_rate_stays_for_its_share_and_falls_to_nothing(share: float, steps: int) -> None:
    schedule = Schedule(2.0, 0, share, steps)
    rates = [schedule.at(step) for step in range(0, steps + 1, max(steps // 50, 1))]
    assert schedule.at(int(share * steps)) == pytest.approx(2)
    assert rates == sorted(rates, reverse=True)
    assert schedule.at(steps) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("loss_factor", "input_value"), [(float("nan"), 1.0), (1.0, float("inf")), (1.0, 1.0)])
def test_an_update_of_a_loss_or_gradient_that_is_not_finite_is_skipped(loss_factor: float, input_value: float) -> None:
    module = nn.Linear(2, 1)
    optimizer = Optimizer(Accelerator(cpu=True), module, trainer_config(lr_warmup=0))
    before = module.weight.detach().clone()
    loss = optimizer.module(torch.full((1, 2), input_value)).sum()
    optimizer.accelerator.backward(loss)
    update = optimizer.update(0, [loss * loss_factor])
    finite = loss_factor == input_value == 1.0
    assert update.skipped != finite
    assert torch.equal(module.weight, before) != finite
    assert math.isfinite(update.gradient_norm) == (input_value == 1.0)
    assert module.weight.grad is None


def test_vectors_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    matrices, vectors = parameter_groups(module, weight_decay=0.1)
    assert (matrices["weight_decay"], [list(p.shape) for p in matrices["params"]]) == (0.1, [[4, 3]])
    assert (vectors["weight_decay"], [list(p.shape) for p in vectors["params"]]) == (0, [[4], [4], [4]])
