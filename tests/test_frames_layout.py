"""The frames layout: what a position is given and predicts, and generation equal to full forward passes."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU, golden_config, golden_file, golden_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_generation import conditioning_of, generated_windows, random_ids, small_config

from open_musiclm.checkpoints import save_weights
from open_musiclm.config import CoarseConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.cuda_graphs import GraphCache
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling, gumbel_noise, sample, sample_rng
from open_musiclm.models.frames_layout import delayed, undelayed
from open_musiclm.models.stages import Stage, build_stage, load_stage, load_stage_to_train_on
from open_musiclm.models.token_layout import PADDING

STAGES = ("coarse", "fine")
SHAPES: dict[str, dict] = {
    "continuous": {},
    "t5": {"relative_position_bias_type": "t5"},
    "plain_feed_forward": {"use_conv_ff": False},
    "no_lookahead": {"conditioning_depth": 0},
    "wide_lookahead": {"conditioning_depth": 3, "conditioning_kernel": 5},
    "clap_per_frame": {"clap_per_frame": True},
}


def frames_stage(name: str, **options: object) -> Stage:
    torch.manual_seed(3)
    keys = ("conditioning_depth", "conditioning_kernel", "clap_per_frame")
    own = {key: options.pop(key) for key in keys if key in options}
    config = small_config(**options)
    section = config.stage(name)
    frames = type(section).model_validate({**section.model_dump(), "token_layout": "frames", **own})
    stage = build_stage(name, config.model_copy(update={f"{name}_cfg": frames})).eval()
    if frames.clap_per_frame:
        torch.nn.init.normal_(stage.layout.clap_per_frame.weight, std=0.1)  # zero at first
    return stage


def ids_of(stage: Stage, batch: int, frames: int) -> list[torch.Tensor]:
    """Random tokens of a window: CLAP, conditioning at its own rate, and what is predicted."""
    _, conditioning, predicted = stage.sequences
    given_frames = round(frames * conditioning.frame_hz / predicted.frame_hz) - conditioning.lost_frames
    return [
        random_ids(stage, 0, batch, 1),
        random_ids(stage, 1, batch, given_frames),
        random_ids(stage, 2, batch, frames),
    ]


@given(st.integers(0, 9), st.integers(1, 5))
def test_the_delay_pattern_comes_back(frames: int, quantizers: int) -> None:
    ids = torch.arange(2 * frames * quantizers).view(2, frames, quantizers)
    pattern = delayed(ids, -7)
    assert pattern.shape[1] == frames + quantizers - 1
    for position in range(pattern.shape[1]):
        for quantizer in range(quantizers):
            frame = position - quantizer
            expected = ids[:, frame, quantizer] if 0 <= frame < frames else torch.tensor([-7, -7])
            assert torch.equal(pattern[:, position, quantizer], expected)
    assert torch.equal(undelayed(pattern, frames), ids)


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_a_token_depends_on_earlier_positions_only(name: str) -> None:
    stage = frames_stage(name)
    ids = ids_of(stage, 1, 12)
    logits = stage.training_logits(ids, [False] * 3)[0][-1]
    frames, quantizers = ids[-1].shape[1:]
    for frame in (0, 5, 11):
        for quantizer in range(quantizers):
            other = [*ids[:2], ids[2].clone()]
            other[2][:, frame, quantizer] = (ids[2][:, frame, quantizer] + 1) % 17
            changed = (stage.training_logits(other, [False] * 3)[0][-1] != logits).any(dim=-1)[0]
            changed = changed.view(frames, quantizers)
            for later in range(frames):
                for book in range(quantizers):
                    if later + book <= frame + quantizer:  # its position is not behind
                        assert not changed[later, book]
            if frame + quantizer < frames - 1:
                assert changed.any()


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_conditioning_acts_from_its_lookahead_on(name: str) -> None:
    stage = frames_stage(name, conditioning_depth=2, conditioning_kernel=3, use_conv_ff=False)
    ids = ids_of(stage, 1, 30)
    _, conditioning, predicted = stage.sequences
    lookahead = stage.layout.conditioning.lookahead_seconds
    assert lookahead == pytest.approx(2 / conditioning.frame_hz)
    logits = stage.training_logits(ids, [False] * 3)[0][-1]
    other = [ids[0], ids[1].clone(), ids[2]]
    at = 10
    other[1][:, at] = (ids[1][:, at] + 1) % 11
    changed = (stage.training_logits(other, [False] * 3)[0][-1] - logits).abs().amax(dim=-1)[0] > 1e-7
    first = changed.view(30, -1)[:, 0].nonzero().min().item()
    ratio = conditioning.frame_hz / predicted.frame_hz
    expected = next(f for f in range(30) if int((f + 0.5) * ratio) >= at - 2)
    assert first == expected


@torch.no_grad()
def test_clap_per_frame_reaches_every_frame_and_is_nothing_for_hidden_tokens() -> None:
    stage = frames_stage("coarse", clap_per_frame=True)
    clap, conditioning, _ = ids_of(stage, 1, 30)
    hidden = torch.full_like(clap, PADDING)
    vectors = {
        name: stage.layout.frame_conditioning(ids, conditioning, 30)
        for name, ids in {"one": clap, "other": (clap + 1) % 11, "hidden": hidden}.items()
    }
    assert torch.equal(vectors["hidden"], stage.layout.conditioning(conditioning, 30))
    difference = vectors["one"] - vectors["other"]
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-6)
    assert difference[:, 0].norm() > 0.1


@torch.no_grad()
def test_clap_per_frame_may_be_added_in_further_training(tmp_path: Path) -> None:
    before = small_config().model_copy(update={"coarse_cfg": CoarseConfig(dim=32, depth=2, token_layout="frames")})
    after = before.model_copy(update={"coarse_cfg": before.coarse_cfg.model_copy(update={"clap_per_frame": True})})
    old = build_stage("coarse", before).eval()
    save_weights(tmp_path / "coarse.safetensors", "coarse", old.layout.state_dict(), before)
    with pytest.raises(UserError, match="clap_per_frame False there, True here"):
        load_stage(tmp_path, "coarse", after, CPU)
    new = load_stage_to_train_on(tmp_path, "coarse", after, CPU).eval()
    ids = ids_of(old, 2, 6)
    wanted = [False] * 3
    assert torch.equal(new.training_logits(ids, wanted)[0][-1], old.training_logits(ids, wanted)[0][-1])


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_generation_equals_full_forward_passes(name: str, options: dict) -> None:
    stage = frames_stage(name, **dict(options))
    frames, batch = 7, 3
    quantizers, classes = stage.predicted.quantizers, stage.predicted.codebook_size
    for start in (0, 1, 4):
        ids = ids_of(stage, batch, start + frames)
        context = ids[-1][:, :start]
        for sampling in (Sampling(), Sampling(0.4, top_k=5), Sampling(1.3, top_p=0.7), Sampling(0.0)):
            rngs = [[sample_rng(1, "a prompt", number, name) for number in range(batch)] for _ in range(2)]
            made = stage_generator(stage).generate(ids[:2], context, frames, sampling, rngs[0], _ignore)
            noise = [gumbel_noise(rngs[1], quantizers, classes, CPU) for _ in range(frames)]
            tokens = torch.cat((context, torch.zeros(batch, frames, quantizers, dtype=torch.long)), dim=1)
            for step in range(frames + quantizers - 1):
                logits = stage.training_logits([*ids[:2], tokens], [False] * 3)[0][-1]
                by_frame = logits.view(batch, -1, quantizers, classes)
                for quantizer in range(quantizers):
                    frame = step - quantizer
                    if 0 <= frame < frames:
                        chosen = sample(by_frame[:, start + frame, quantizer], noise[frame][quantizer], sampling)
                        tokens[:, start + frame, quantizer] = chosen
            assert torch.equal(made, tokens[:, start:])


@torch.no_grad()
def test_a_sample_does_not_change_with_its_batch() -> None:
    stage = frames_stage("coarse")
    ids = ids_of(stage, 4, 9)

    def generate(places: list[int]) -> torch.Tensor:
        rngs = [sample_rng(7, "p", place, "coarse") for place in places]
        given = [tokens[places] for tokens in ids[:2]]
        return stage_generator(stage).generate(given, ids[2][places, :3], 6, Sampling(), rngs, _ignore)

    all_four = generate([0, 1, 2, 3])
    assert torch.equal(generate([2]), all_four[2:3])
    assert torch.equal(generate([3, 1]), all_four[[3, 1]])
    assert not torch.equal(all_four[0], all_four[1])


@pytest.mark.parametrize("cfg_scale", [0.0, 2.5])
@torch.no_grad()
def test_guidance_equals_two_full_passes(cfg_scale: float) -> None:
    stage = frames_stage("coarse", condition_dropout=0.1)
    ids = ids_of(stage, 2, 8)
    hidden = [torch.full_like(tokens, PADDING) for tokens in ids[:2]]
    rngs = [[sample_rng(4, "p", number, "coarse") for number in range(2)] for _ in range(2)]
    sampling = Sampling(0.8, cfg_scale=cfg_scale)
    made = stage_generator(stage).generate(ids[:2], ids[2][:, :2], 6, sampling, rngs[0], _ignore)
    whole = torch.cat((ids[2][:, :2], made), dim=1)
    passes = [stage.training_logits([*given, whole], [False] * 3)[0][-1] for given in (ids[:2], hidden)]
    logits = (passes[1] + cfg_scale * (passes[0] - passes[1])).view(2, 8, stage.predicted.quantizers, -1)
    for frame in range(6):
        noise = gumbel_noise(rngs[1], stage.predicted.quantizers, stage.predicted.codebook_size, CPU)
        for quantizer in range(stage.predicted.quantizers):
            expected = sample(logits[:, 2 + frame, quantizer], noise[quantizer], Sampling(0.8))
            assert torch.equal(made[:, frame, quantizer], expected)


@pytest.mark.parametrize("name", STAGES)
def test_a_step_captured_once_serves_windows_of_any_length(name: str) -> None:
    stage = frames_stage(name)
    captures: list[int] = []

    def capture(work):
        captures.append(len(captures))
        work()
        work()
        return work

    generator = stage_generator(stage)
    generator.graphs = GraphCache(capture=capture)
    expected = generated_windows(stage_generator(stage), CPU)
    assert all(map(torch.equal, generated_windows(generator, CPU), expected))
    assert len(captures) == 2  # one for each batch size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", STAGES)
def test_a_gpu_generates_the_same_tokens(name: str) -> None:
    stage = frames_stage(name)
    expected = generated_windows(stage_generator(stage), CPU)
    device = torch.device("cuda")
    assert all(map(torch.equal, generated_windows(stage_generator(stage.to(device)), device), expected))


def test_progress_counts_frames() -> None:
    stage = frames_stage("fine")
    counted: list[int] = []
    context = random_ids(stage, 2, 1, 2)[:, :0]
    rngs = [sample_rng(0, "", 0, "fine")]
    stage_generator(stage).generate(conditioning_of(stage, 1), context, 5, Sampling(), rngs, partial(counted.append, 1))
    assert len(counted) == 5


def test_gradients_reach_every_parameter() -> None:
    stage = frames_stage("fine").train()
    loss = stage(ids_of(stage, 2, 6), seeds=torch.arange(2, dtype=torch.int32)).loss
    loss.backward()
    missing = [name for name, weight in stage.named_parameters() if weight.grad is None]
    assert missing == []


@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize(("condition_dropout", "same"), [(0.0, False), (0.999999, True)])
def test_condition_dropout_hides_all_conditioning_in_training_only(
    condition_dropout: float, same: bool, changed: int
) -> None:
    stage = frames_stage("coarse", condition_dropout=condition_dropout, ff_dropout=0.0, use_conv_ff=False)
    ids = ids_of(stage, 4, 9)
    other = [tokens.clone() for tokens in ids]
    other[changed] = (ids[changed] + 1) % 11
    seeds = torch.arange(4, dtype=torch.int32)
    losses = [float(stage.train()(tokens, seeds=seeds).loss.detach()) for tokens in (ids, other)]
    assert (losses[0] == losses[1]) is same
    assert float(stage.eval()(ids).loss) != float(stage.eval()(other).loss)


def test_the_likeliest_tokens_and_the_accuracy_are_those_of_the_logits() -> None:
    stage = frames_stage("coarse")
    ids = ids_of(stage, 2, 9)
    result = stage(ids)
    logits = stage.training_logits(ids, [False] * 3)[0][-1]
    assert torch.equal(result.predicted_ids, logits.argmax(dim=-1).view_as(ids[-1]))
    assert float(result.accuracy) == pytest.approx(float((result.predicted_ids == ids[-1]).float().mean()))


def test_losses_of_the_conditioning_are_refused() -> None:
    stage = frames_stage("coarse")
    with pytest.raises(UserError, match="cross_entropy_loss_weights"):
        stage(ids_of(stage, 1, 4), [0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    "wrong", [{"conditioning_kernel": 4}, {"conditioning_time_bias": True}, {"non_causal_prefix_size": 3}]
)
def test_settings_that_do_not_fit_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        CoarseConfig.model_validate({"token_layout": "frames", **wrong})
    with pytest.raises(ValidationError, match="clap_per_frame: only with token_layout frames"):
        CoarseConfig(clap_per_frame=True)


@pytest.mark.parametrize("layouts", [("flat", "frames"), ("frames", "flat")])
def test_weights_of_the_other_layout_are_one_clear_line(tmp_path: Path, layouts: tuple[str, str]) -> None:
    saved, wanted = (
        small_config().model_copy(update={"coarse_cfg": CoarseConfig(dim=32, depth=2, heads=3, token_layout=layout)})
        for layout in layouts
    )
    path = tmp_path / "coarse.safetensors"
    save_weights(path, "coarse", build_stage("coarse", saved).layout.state_dict(), saved)
    load_stage(path, "coarse", saved, CPU)
    with pytest.raises(UserError, match=rf"token_layout {layouts[0]} there, {layouts[1]} here$"):
        load_stage(path, "coarse", wanted, CPU)


def test_released_weights_are_flat() -> None:
    config = golden_config(golden_settings("coarse"))
    frames = config.coarse_cfg.model_copy(update={"token_layout": "frames"})
    with pytest.raises(UserError, match="token_layout"):
        load_stage(
            golden_file("coarse.transformer.pt"), "coarse", config.model_copy(update={"coarse_cfg": frames}), CPU
        )


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 12))
def test_any_length_has_a_loss(batch: int, frames: int) -> None:
    stage = frames_stage("coarse")
    result = stage(ids_of(stage, batch, frames))
    assert result.loss.isfinite()
    assert result.predicted_ids.shape == (batch, frames, stage.predicted.quantizers)


def _ignore() -> None:
    """Progress that is not shown."""
