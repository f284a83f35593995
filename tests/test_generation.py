"""Generation of one window: equal to full forward passes, whatever the options of the transformer."""

import gc
import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers.golden_cases import CPU

from open_musiclm.config import (
    ClapRvqConfig,
    CoarseConfig,
    EncodecConfig,
    FineConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    SemanticConfig,
    StageName,
)
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.cuda_graphs import GraphCache
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling, gumbel_noise, sample, sample_rng
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.models.stages import Stage, build_stage, forgetful_mask

OPTIONS: dict[str, dict] = {
    "continuous": {},
    "t5": {"relative_position_bias_type": "t5"},
    "none_absolute": {"relative_position_bias_type": "none", "use_absolute_position_embeddings": True},
    "plain_feed_forward": {"use_conv_ff": False},
    "time_bias": {"conditioning_time_bias": True},
    "time_bias_and_prefix": {"conditioning_time_bias": True, "non_causal_prefix_size": 5},
    "prefix": {"non_causal_prefix_size": 5},
    "prefix_beyond_the_conditioning": {"non_causal_prefix_size": 21, "relative_position_bias_type": "t5"},
}


def small_config(**transformer: object) -> ModelConfig:
    transformer = {"dim": 32, "depth": 2, "heads": 3, "max_absolute_position_embeddings": 80, **transformer}
    return ModelConfig(
        global_cfg=GlobalConfig(num_coarse_quantizers=2, num_fine_quantizers=3),
        clap_rvq_cfg=ClapRvqConfig(codebook_size=11, rq_num_quantizers=4),
        hubert_kmeans_cfg=HubertKmeansConfig(codebook_size=13),
        encodec_cfg=EncodecConfig(codebook_size=17),
        semantic_cfg=SemanticConfig.model_validate(transformer),
        coarse_cfg=CoarseConfig.model_validate(transformer),
        fine_cfg=FineConfig.model_validate(transformer),
    )


def random_ids(stage: Stage, index: int, batch: int, time: int) -> torch.Tensor:
    kind = stage.sequences[index]
    return torch.randint(kind.codebook_size, (batch, 1 if kind.name == "clap" else time, kind.quantizers))


def conditioning_of(stage: Stage, batch: int) -> list[torch.Tensor]:
    return [random_ids(stage, index, batch, time=5) for index in range(len(stage.sequences) - 1)]


def made_anew_for_every_token(
    stage: Stage,
    conditioning: list[torch.Tensor],
    known: torch.Tensor,
    frames: int,
    sampling: Sampling,
    streams: list[torch.Generator],
) -> torch.Tensor:
    """What generation must equal: the whole sequence through the training forward for each token."""
    quantizers = stage.predicted.quantizers
    noise = gumbel_noise(streams, frames * quantizers, stage.predicted.codebook_size + 1, CPU)
    tokens = known.flatten(1)
    for draw in noise:
        missing = -tokens.shape[1] % quantizers
        padded = torch.nn.functional.pad(tokens, (0, missing)).unflatten(1, (-1, quantizers))
        # Whole time steps only: what is behind the last token cannot be seen by the position that predicts the next,
        # except in a non-causal prefix, which the caller keeps within the known tokens.
        logits, _ = stage.training_logits([*conditioning, padded], [False] * len(stage.sequences))
        assert logits[-1] is not None
        tokens = torch.cat(
            (tokens, sample(logits[-1][:, tokens.shape[1], :-1], draw[:, :-1], sampling).unsqueeze(1)), dim=1
        )
    return tokens[:, known.flatten(1).shape[1] :].unflatten(1, (-1, quantizers))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
@torch.no_grad()
def test_generation_equals_full_forward_passes(name: str, options: dict) -> None:
    torch.manual_seed(3)
    stage = build_stage(name, small_config(**options)).eval()
    if options.get("non_causal_prefix_size", 0) > 5 and stage.predicted.quantizers > 1:
        pytest.skip("the comparison pads to whole time steps, which a prefix would see")
    conditioning = conditioning_of(stage, batch=3)
    for known_frames in (0, 4):
        known = random_ids(stage, len(stage.sequences) - 1, 3, known_frames)[:, :known_frames]
        for sampling in (Sampling(), Sampling(0.4, top_k=5), Sampling(1.3, top_p=0.7), Sampling(0.0)):
            streams = [[sample_rng(1, "a prompt", row, name) for row in range(3)] for _ in range(2)]
            generated = stage_generator(stage).generate(conditioning, known, 7, sampling, streams[0], _ignore)
            expected = made_anew_for_every_token(stage, conditioning, known, 7, sampling, streams[1])
            assert torch.equal(generated, expected)
            assert int(generated.max()) < stage.predicted.codebook_size  # never an end id


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
def test_no_frames_are_generated_where_none_are_asked_for(name: str) -> None:
    """As before a change within the first token of a story."""
    stage = build_stage(name, small_config()).eval()
    known = random_ids(stage, len(stage.sequences) - 1, 2, 3)
    streams = [sample_rng(1, "a prompt", row, name) for row in range(2)]
    generator = stage_generator(stage)
    found = generator.generate(conditioning_of(stage, batch=2), known, 0, Sampling(), streams, _ignore)
    assert found.shape == (2, 0, stage.predicted.quantizers)


@torch.no_grad()
def test_a_sample_does_not_change_with_its_batch() -> None:
    torch.manual_seed(5)
    stage = build_stage("coarse", small_config()).eval()
    conditioning = conditioning_of(stage, batch=4)
    known = random_ids(stage, 2, 4, 3)

    def generate(rows: list[int]) -> torch.Tensor:
        streams = [sample_rng(7, "p", row, "coarse") for row in rows]
        return stage_generator(stage).generate(
            [ids[rows] for ids in conditioning], known[rows], 6, Sampling(), streams, _ignore
        )

    together = generate([0, 1, 2, 3])
    assert torch.equal(generate([2]), together[2:3])
    assert torch.equal(generate([3, 1]), together[[3, 1]])
    assert not torch.equal(together[0], together[1])


def test_progress_is_told_of_every_time_step() -> None:
    stage = build_stage("fine", small_config()).eval()
    told: list[int] = []
    known = random_ids(stage, 2, 1, 2)[:, :0]
    stage_generator(stage).generate(
        conditioning_of(stage, 1), known, 5, Sampling(), [sample_rng(0, "", 0, "fine")], partial(told.append, 1)
    )
    assert len(told) == 5


def test_forgetful_masking_hides_a_fixed_share_but_never_the_first() -> None:
    hidden = forgetful_mask(torch.arange(64, dtype=torch.int32), 101)
    assert not hidden[:, 0].any()
    assert (hidden.sum(dim=1) == 15).all()
    assert hidden.any(dim=0)[1:].all()


def test_forgetful_masking_acts_in_training_and_goes_on_after_validation() -> None:
    torch.manual_seed(0)
    stage = build_stage("semantic", small_config(ff_dropout=0.0))
    ids = [random_ids(stage, 0, 2, 1), random_ids(stage, 1, 2, 20)]
    losses = {float(stage.train()(ids).loss.detach()) for _ in range(4)}
    steady = {float(stage.eval()(ids).loss.detach()) for _ in range(4)}
    again = {float(stage.train()(ids).loss.detach()) for _ in range(4)}
    assert len(losses) == 4
    assert len(steady) == 1
    assert len(again) == 4


def test_end_ids_and_padding_of_the_conditioning_are_not_seen() -> None:
    torch.manual_seed(0)
    stage = build_stage("coarse", small_config(use_conv_ff=False)).eval()
    ids = [random_ids(stage, 0, 1, 1), random_ids(stage, 1, 1, 6), random_ids(stage, 2, 1, 4)]
    padded = ids[1].clone()
    padded[:, 3:] = -1
    other = ids[1].clone()
    other[:, 3:] = stage.sequences[1].end_id
    assert float(stage([ids[0], padded, ids[2]]).loss) == float(stage([ids[0], other, ids[2]]).loss)
    assert float(stage([ids[0], padded, ids[2]]).loss) != float(stage(ids).loss)


def test_gradients_reach_every_parameter_and_shrink_at_the_embeddings() -> None:
    torch.manual_seed(0)
    gradients = {}
    for alpha in (0.1, 1.0):
        torch.manual_seed(0)
        stage = build_stage("fine", small_config(grad_shrink_alpha=alpha)).eval()
        ids = [random_ids(stage, 0, 2, 1), random_ids(stage, 1, 2, 4), random_ids(stage, 2, 2, 4)]
        stage(ids, [0.2, 0.3, 1.0]).loss.backward()
        assert all(parameter.grad is not None for parameter in stage.parameters())
        gradients[alpha] = stage.layout.embeddings[2].weight.grad
    torch.testing.assert_close(gradients[0.1], gradients[1.0] * 0.1, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(
    "make",
    [lambda: Sampling(-1.0), lambda: Sampling(top_k=0), lambda: Sampling(top_p=0.0), lambda: Sampling(top_p=1.5)],
)
def test_impossible_sampling_is_refused(make: Callable[[], Sampling]) -> None:
    with pytest.raises(UserError):
        make()


def test_sampling_keeps_to_its_bounds() -> None:
    logits = torch.arange(20.0).repeat(200, 1) / 4
    (noise,) = gumbel_noise([torch.Generator().manual_seed(row) for row in range(200)], 1, 20, CPU)
    assert set(sample(logits, noise, Sampling(top_k=3)).tolist()) == {17, 18, 19}
    assert set(sample(logits, noise, Sampling(0.0)).tolist()) == {19}
    assert len(set(sample(logits, noise, Sampling()).tolist())) == 2  # a tenth of the ids
    assert set(sample(logits, noise, Sampling(top_k=20, top_p=1e-6)).tolist()) == {19}


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20000, -1)
    noise = gumbel_noise([torch.Generator().manual_seed(1)], 20000, 3, CPU).squeeze(1)
    chosen = sample(logits, noise, Sampling(0.5, top_k=3)).bincount(minlength=3) / 20000
    expected = (torch.tensor([0.0, 1.0, 2.0]) / 0.5).softmax(0)
    assert torch.allclose(chosen, expected, atol=0.015)


def _ignore() -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
@torch.no_grad()
def test_bfloat16_weights_take_what_the_exact_ones_find_likeliest_or_nearly_so(name: str) -> None:
    torch.manual_seed(0)
    stage = build_stage(name, small_config()).eval()
    conditioning, known = conditioning_of(stage, 2), random_ids(stage, -1, 2, time=3)
    streams = [sample_rng(0, "a", number, name) for number in range(2)]
    rough = stage_generator(stage, torch.bfloat16)
    chosen = rough.generate(conditioning, known, 9, Sampling(temperature=0), streams, _ignore)
    logits, _ = stage.training_logits(
        [*conditioning, torch.cat((known, chosen), dim=1)], [False] * len(stage.sequences)
    )
    assert logits[-1] is not None
    exact = logits[-1][:, known.flatten(1).shape[1] : -1, :-1]
    lost = exact.amax(dim=-1) - exact.gather(-1, chosen.flatten(1).unsqueeze(-1)).squeeze(-1)
    assert float(lost.max()) < 0.1
    assert float(exact.std()) > 0.1


@pytest.mark.parametrize(("name", "layout"), [("semantic", "flat"), ("coarse", "frames")])
def test_a_generator_leaves_the_stage_to_be_freed(name: StageName, layout: str) -> None:
    config = small_config(dim=64)
    coarse = config.coarse_cfg.model_copy(update={"token_layout": layout})
    stage = build_stage(name, config.model_copy(update={"coarse_cfg": coarse}))
    transformer = weakref.ref(stage.layout.transformer)
    generator = stage_generator(stage, torch.bfloat16)
    del stage
    gc.collect()
    assert transformer() is None
    assert generator.predicted.name == name


def generated_windows(generator: StageGenerator, device: torch.device) -> list[torch.Tensor]:
    """Windows of several lengths, contexts and batches, one after the other with the same generator."""
    made = []
    torch.manual_seed(11)
    for batch, known_frames, frames in ((2, 0, 5), (2, 3, 4), (1, 2, 6), (2, 0, 5)):
        conditioning = [
            torch.randint(kind.codebook_size, (batch, 1 if kind.name == "clap" else 5, kind.quantizers))
            for kind in generator.sequences[:-1]
        ]
        known = torch.randint(generator.predicted.codebook_size, (batch, known_frames, generator.predicted.quantizers))
        streams = [sample_rng(1, "p", row, "any") for row in range(batch)]
        ids = generator.generate(
            [ids.to(device) for ids in conditioning], known.to(device), frames, Sampling(0.9), streams, _ignore
        )
        made.append(ids.cpu())
    return made


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
@pytest.mark.parametrize(
    "options",
    [{}, {"non_causal_prefix_size": 5}, {"conditioning_time_bias": True}],
    ids=["plain", "prefix", "time_bias"],
)
def test_a_step_captured_once_serves_windows_of_any_length(name: str, options: dict) -> None:
    torch.manual_seed(3)
    stage = build_stage(name, small_config(**options)).eval()
    captures: list[int] = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        """As a graph is captured: the work runs several times before it is asked for."""
        captures.append(len(captures))
        work()
        work()
        return work

    generator = stage_generator(stage)
    generator.graphs = GraphCache(capture=capture)
    expected = generated_windows(stage_generator(stage), CPU)
    assert all(map(torch.equal, generated_windows(generator, CPU), expected))
    assert len(captures) == 2  # one for each batch size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
def test_a_gpu_generates_the_same_tokens(name: str) -> None:
    torch.manual_seed(3)
    stage = build_stage(name, small_config()).eval()
    expected = generated_windows(stage_generator(stage), CPU)
    device = torch.device("cuda")
    assert all(map(torch.equal, generated_windows(stage_generator(stage.to(device)), device), expected))
