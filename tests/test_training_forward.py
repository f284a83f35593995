"""The training forward: one result whichever way attention is computed; randomness that belongs to the example."""

import sys
from itertools import product

import pytest
import torch
from helpers.golden_cases import golden_config, golden_file, golden_settings, golden_tensors
from helpers.paths import REPOSITORY
from torch import Tensor
from torch.nn import functional

from open_musiclm.config import CoarseConfig, ModelConfig, StageName, load_model_config
from open_musiclm.models.attention import LOGIT_SCALE, DenseAttention, dense_bias
from open_musiclm.models.example_rng import ExampleDropout, derive_seeds, keep_mask, random_int32
from open_musiclm.models.position_bias import ContinuousPositionBias, toeplitz_bias
from open_musiclm.models.stages import Stage, build_stage, load_stage
from open_musiclm.models.transformer import Transformer

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from plain_stage import plain_loss
from training_memory import kept_on_cpu, simulated_peak, step

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SEEDS = torch.arange(100, 103, dtype=torch.int32)


def small_stage(dropout: float = 0.0) -> tuple[Stage, list[Tensor]]:
    """A coarse stage and a batch of three."""
    from helpers.small_training import model_config

    cfg = CoarseConfig(dim=32, depth=2, heads=2, ff_dropout=dropout)
    config: ModelConfig = model_config().model_copy(update={"coarse_cfg": cfg})
    torch.manual_seed(0)
    stage = build_stage("coarse", config)
    shapes = [(3, 1, 2), (3, 8, 1), (3, 7, 3)]
    return stage, [torch.randint(16, shape) for shape in shapes]


def gradients(stage: Stage) -> dict[str, Tensor]:
    found = {name: weight.grad.clone() for name, weight in stage.named_parameters() if weight.grad is not None}
    stage.zero_grad()
    return found


@pytest.mark.parametrize("case", ["semantic", "semantic_t5", "coarse", "fine", "coarse_plain_ff_absolute"])
def test_the_plain_computation_that_is_measured_against_is_the_same_function(case: str) -> None:
    settings, expected = golden_settings(case), golden_tensors(case)
    weights = golden_file(f"{case}.transformer.pt")
    stage = load_stage(weights, settings["stage"], golden_config(settings), CPU)
    ids = [expected[f"ids.{i}"] for i in range(len(stage.sequences))]
    stage(ids).loss.backward()
    found = gradients(stage)
    loss = plain_loss(stage, ids)
    loss.backward()
    assert loss.item() == pytest.approx(stage(ids).loss.item(), abs=1e-5)
    for name, gradient in gradients(stage).items():
        if gradient.any():
            assert torch.allclose(found[name], gradient, atol=1e-5), name


@pytest.mark.parametrize("ahead", [0, 4, 30])
def test_the_bias_between_all_is_that_at_their_distance_and_so_is_its_gradient(ahead: int) -> None:
    heads, time = 2, 21
    by_distance = torch.randn(heads, ahead + time, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(time)
    index = (positions[:, None] - positions).clamp(min=-ahead) + ahead
    found, expected = toeplitz_bias(by_distance, time), by_distance[:, index]
    assert torch.equal(found, expected)
    weight = torch.randn(heads, time, time, dtype=torch.float64)
    gradients = [torch.autograd.grad((bias * weight).sum(), by_distance)[0] for bias in (found, expected)]
    assert torch.allclose(*gradients)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prefix", [0, 5])
def test_attention_takes_from_the_keys_that_are_seen(prefix: int, device: str) -> None:
    """Against the written-out sum, one query at a time; and the gradient of the bias."""
    time, heads = 37, 2
    query = functional.normalize(torch.randn(3, heads, time, 64), dim=-1)
    key, value = functional.normalize(torch.randn(3, time, 64), dim=-1), torch.randn(3, time, 64)
    bias, mask = torch.randn(heads, time, time), torch.rand(3, time) > 0.2
    mask[:, 0] = True
    given = [tensor.to(device, copy=True).requires_grad_() for tensor in (query, key, value, bias)]
    attended = DenseAttention(dense_bias(given[3], mask.to(device), prefix))(*given[:3])
    plain = [tensor.clone().requires_grad_() for tensor in (query, key, value, bias)]
    rows = []
    for b, head, i in product(range(3), range(heads), range(time)):
        seen = [j for j in range(time) if mask[b, j] and (j <= i or (i < prefix and j < prefix))]
        scores = LOGIT_SCALE * plain[1][b, seen] @ plain[0][b, head, i] + plain[3][head, i, seen]
        rows.append(scores.softmax(dim=0) @ plain[2][b, seen])
    expected = torch.stack(rows).view(3, heads, time, 64)
    assert torch.allclose(attended.cpu(), expected, atol=1e-5)
    direction = torch.randn_like(expected)
    (attended.cpu() * direction).sum().backward()
    (expected * direction).sum().backward()
    for found, wanted in zip(given, plain, strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert torch.allclose(found.grad.cpu(), wanted.grad, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_has_the_same_gradients(precision: str) -> None:
    stage, ids = small_stage()
    stage(ids, seeds=SEEDS).loss.backward()
    expected = gradients(stage)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        stage.cuda()([sequence.cuda() for sequence in ids], seeds=SEEDS.cuda()).loss.backward()
    tolerance = 1e-4 if precision == "float32" else 0.05
    for name, gradient in gradients(stage).items():
        scale = expected[name].norm().clamp_min(1e-3)
        assert (gradient.cpu() - expected[name]).norm() / scale < tolerance, name


def test_blocks_computed_again_give_the_same_gradients_and_compiled_ones_keep_their_names() -> None:
    stage, ids = small_stage(dropout=0.3)
    transformer: Transformer = stage.layout.transformer
    stage(ids, seeds=SEEDS).loss.backward()
    expected = gradients(stage)
    transformer.gradient_checkpointing = True
    stage(ids, seeds=SEEDS).loss.backward()
    for name, gradient in gradients(stage).items():
        assert torch.allclose(gradient, expected[name], atol=1e-7), name
    transformer.compile_blocks()
    assert not [name for name in stage.state_dict() if "_orig_mod" in name]


def test_an_example_is_treated_alike_in_any_batch() -> None:
    stage, ids = small_stage(dropout=0.5)
    whole = stage(ids, seeds=SEEDS).loss
    single = [stage([sequence[i : i + 1] for sequence in ids], seeds=SEEDS[i : i + 1]).loss for i in range(3)]
    assert whole.item() == pytest.approx(torch.stack(single).mean().item(), abs=1e-6)
    assert stage(ids, seeds=SEEDS + 1).loss.item() != pytest.approx(whole.item(), abs=1e-4)
    assert stage.eval()(ids).loss.item() != pytest.approx(whole.item(), abs=1e-4)


def test_noise_is_as_good_as_random() -> None:
    dropped = keep_mask(SEEDS, 200, 300, 0.9)
    assert dropped.float().mean() == pytest.approx(0.9, abs=0.003)
    for dim in (1, 2):  # no row or column has more than its random share
        share = dropped.float().mean(dim)
        assert share.std() == pytest.approx((0.09 / dropped.shape[dim]) ** 0.5, rel=0.15)
    other = keep_mask(derive_seeds(SEEDS, 1), 200, 300, 0.9)
    assert torch.corrcoef(torch.stack((dropped.flatten(), other.flatten())).float())[0, 1].abs() < 0.01
    flat = (dropped[0].float() - 0.9) @ (dropped[0].float() - 0.9).t() / 300
    assert (flat - flat.diag().diag()).abs().max() < 6 * 0.09 / 300**0.5  # rows have nothing to do with each other
    numbers = random_int32(SEEDS, 100_000).double() / 2**32 + 0.5
    assert numbers.histc(20, 0, 1).div(15_000).sub(1).abs().max() < 0.05


def test_dropout_keeps_the_mean_and_stops_in_evaluation() -> None:
    dropout, x = ExampleDropout(0.4), torch.ones(3, 100, 200)
    assert dropout(x, SEEDS).mean() == pytest.approx(1, abs=0.01)
    assert dropout(x, SEEDS).unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert torch.equal(dropout.eval()(x, SEEDS), x)


def test_mixed_precision_tells_large_distances_apart() -> None:
    stage, _ = small_stage()
    transformer = stage.layout.transformer
    assert isinstance(transformer.position_bias, ContinuousPositionBias)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transformer._bias_by_distance(1000)
    assert torch.equal(mixed, transformer._bias_by_distance(1000))


def test_mixed_precision_is_close() -> None:
    stage, ids = small_stage()
    expected = stage.eval()(ids).loss
    with torch.autocast("cpu", torch.bfloat16):
        found = stage(ids).loss
    assert found.item() == pytest.approx(expected.item(), abs=0.05)


def test_computed_memory_counts_what_a_real_step_keeps() -> None:
    config = load_model_config(REPOSITORY / "configs/demo/model.json")
    for stage in ("semantic", "coarse"):
        kept, computed = kept_on_cpu(config, stage, fake=False), kept_on_cpu(config, stage, fake=True)
        assert computed == pytest.approx(kept, rel=1e-3)


@pytest.mark.parametrize(("stage", "checkpointing"), [("semantic", False), ("coarse", True)])
def test_computed_memory_is_above_the_peak(stage: StageName, checkpointing: bool) -> None:
    config = load_model_config(REPOSITORY / "configs/demo/model.json")
    section = f"{stage}_cfg"
    config = config.model_copy(update={section: getattr(config, section).model_copy(update={"depth": 3})})
    estimate = step(config, stage, 4, checkpointing, "cpu")
    peak = simulated_peak(config, stage, 4, checkpointing)
    assert peak < estimate.total < 1.8 * peak
    weights = sum(weight.numel() for weight in build_stage(stage, config).parameters())
    assert estimate.weights + estimate.training == 16 * weights
