"""The recorded stages: layout and numbers of the earlier implementation."""

import pytest
import torch
from helpers.golden_cases import CPU, closest, golden_config, golden_file, golden_settings, golden_tensors

from open_musiclm.models.stages import Stage, load_stage

CASES = ["semantic", "semantic_prefix", "semantic_t5", "coarse", "coarse_plain_ff_absolute", "fine"]
TOLERANCE = 1e-4


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[dict, dict, Stage]:
    settings = golden_settings(request.param)
    weights = golden_file(f"{request.param}.transformer.pt")
    return (
        settings,
        golden_tensors(request.param),
        load_stage(weights, settings["stage"], golden_config(settings), CPU),
    )


@torch.no_grad()
def test_bare_logits(case: tuple[dict, dict, Stage]) -> None:
    _, expected, stage = case
    ids = [expected[f"ids.{i}"].flatten(1) for i in range(len(stage.sequences))]
    layout = stage.layout
    x, _, times = layout.embed_flat(ids)
    hidden = layout.transformer(x, times)
    for index, output in enumerate(layout.predicting(hidden, [tokens.shape[1] for tokens in ids])):
        assert closest(layout.logits(index, output), expected[f"logits_raw.{index}"]) < TOLERANCE


@torch.no_grad()
def test_training_forward(case: tuple[dict, dict, Stage]) -> None:
    settings, expected, stage = case
    ids = [expected[f"ids.{i}"] for i in range(len(stage.sequences))]
    logits, labels = stage.training_logits(ids, [True] * len(ids))
    for index, scores in enumerate(logits):
        assert scores is not None
        assert closest(scores, expected[f"logits_with_eos.{index}"]) < TOLERANCE
        assert torch.equal(labels[index], expected[f"labels.{index}"])
    loss = stage(ids, settings["cross_entropy_loss_weights"]).loss
    assert float(loss) == pytest.approx(float(expected["loss"]), abs=TOLERANCE)
    assert float(loss) == pytest.approx(settings["expected_loss"], abs=TOLERANCE)
