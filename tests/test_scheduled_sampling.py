"""Scheduled sampling: a share of the history is drawn from the stage's own predictions, in training only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation import random_ids, small_config

from open_musiclm.config import ModelConfig
from open_musiclm.models.scheduled_sampling import sampled_frames, sampled_tokens
from open_musiclm.models.stages import build_stage


def with_layout(config: ModelConfig, token_layout: str) -> ModelConfig:
    return config.model_copy(update={"coarse_cfg": config.coarse_cfg.model_copy(update={"token_layout": token_layout})})


@pytest.mark.parametrize("token_layout", ["flat", "frames"])
def test_scheduled_sampling_is_in_training_only(token_layout: str) -> None:
    torch.manual_seed(0)
    stage, plain = (
        build_stage("coarse", with_layout(small_config(scheduled_sampling=share, ff_dropout=0.0), token_layout))
        for share in (0.999999, 0.0)
    )
    plain.load_state_dict(stage.state_dict())
    ids = [random_ids(stage, index, 3, 7) for index in range(3)]
    seeds = torch.arange(3, dtype=torch.int32)
    loss = stage(ids, seeds=seeds).loss
    loss.backward()
    assert not torch.equal(loss, plain(ids, seeds=seeds).loss)
    assert torch.equal(loss, stage(ids, seeds=seeds).loss)
    each = [stage([tokens[row : row + 1] for tokens in ids], seeds=seeds[row : row + 1]).loss for row in range(3)]
    torch.testing.assert_close(torch.stack(each).mean(), loss)
    with torch.no_grad():
        assert float(stage.eval()(ids).loss) == float(plain.eval()(ids).loss)


@settings(deadline=None)
@given(st.integers(1, 300), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_random_share_of_the_frames_is_drawn(time: int, share: float) -> None:
    chosen = sampled_frames(torch.arange(400, dtype=torch.int32), share, time).float().mean(dim=1)
    assert float(chosen.mean()) == pytest.approx(share / 2, abs=0.1)
    if time > 50:
        assert float((chosen > 0.02).float().mean()) == pytest.approx(share, abs=0.12)


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2, 0.0]).log().expand(2, 20_000, 4) * 0.85
    found = sampled_tokens(logits, torch.tensor([3, 4], dtype=torch.int32))
    shares = torch.stack([(found == number).float().mean(dim=1) for number in range(4)], dim=1)
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.3, 0.2, 0.0]] * 2), atol=0.02, rtol=0)
    assert torch.equal(found[1:], sampled_tokens(logits[1:], torch.tensor([4], dtype=torch.int32)))
    assert not torch.equal(found[0], found[1])
