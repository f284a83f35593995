"""The moving average of weights: what it is, that it leaves training alone, and that a checkpoint has both exactly."""

from pathlib import Path

import pytest
import torch
from torch import nn

from open_musiclm.errors import UserError
from open_musiclm.training.ema import AVERAGE_NAME, WeightAverage, check_average


def trained(module: nn.Module, average: WeightAverage, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for weight in module.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator))
        average.update()


def averages(module: nn.Module, average: WeightAverage) -> list[torch.Tensor]:
    with average.applied():
        return [weight.detach().clone() for weight in module.parameters()]


def test_it_is_the_average_with_a_decay_that_rises() -> None:
    module = nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(module, decay=0.3), float(module.weight)
    for update, value in enumerate((5.0, -2.0, 7.0, 1.0)):
        nn.init.constant_(module.weight, value)
        average.update()
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    assert averages(module, average)[0].item() == pytest.approx(expected)
    assert module.weight.item() == 1.0


def test_a_checkpoint_holds_average_and_training_exactly() -> None:
    module = nn.Linear(3, 2)
    average = WeightAverage(module, 0.9)
    trained(module, average, 5, seed=0)
    exported, kept = averages(module, average), average.state_dict()
    kept = {"updates": kept["updates"], "weights": {name: x.clone() for name, x in kept["weights"].items()}}
    trained(module, average, 5, seed=1)

    other = nn.Linear(3, 2)
    again = WeightAverage(other, 0.9)
    with torch.no_grad():
        for weight, value in zip(other.parameters(), exported, strict=True):
            weight.copy_(value)
    again.load_state_dict(kept)
    trained(other, again, 5, seed=1)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(averages(module, average), averages(other, again), strict=True):
        assert torch.equal(one, two)


def test_a_run_that_goes_on_must_agree_about_it(tmp_path: Path) -> None:
    average = WeightAverage(nn.Linear(1, 1), 0.9)
    check_average(tmp_path, None)
    with pytest.raises(UserError, match="made without ema_decay; leave it out to resume"):
        check_average(tmp_path, average)
    (tmp_path / f"{AVERAGE_NAME}.pt").touch()
    check_average(tmp_path, average)
    with pytest.raises(UserError, match="made with ema_decay; set it again"):
        check_average(tmp_path, None)
