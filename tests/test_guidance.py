"""Guidance: equal to two full passes, and the condition dropout in training that it needs."""

import pytest
import torch
from helpers.golden_cases import CPU
from test_generation import conditioning_of, random_ids, small_config

from open_musiclm import cli
from open_musiclm.config import STAGE_NAMES, GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling, gumbel_noise, sample, sample_rng, sampling_of
from open_musiclm.models.stages import build_stage
from open_musiclm.models.token_layout import PADDING


@pytest.mark.parametrize(("words", "scales"), [([], (1, 1, 1)), (["3"], (3, 3, 3)), (["4,2.5,0"], (4, 2.5, 0))])
def test_guidance_is_said_for_all_stages_or_for_each(words: list[str], scales: tuple[float, ...]) -> None:
    parser = cli.parser("")
    cli.add_generation_arguments(parser, ["cfg_scale"])
    arguments = parser.parse_args([f"--cfg_scale={word}" for word in words])
    config = cli.generation_config_from(arguments, GenerationConfig())
    assert tuple(sampling_of(config, name).cfg_scale for name in STAGE_NAMES) == scales


@torch.no_grad()
@pytest.mark.parametrize("cfg_scale", [0.0, 2.5])
def test_guidance_equals_two_full_passes(cfg_scale: float) -> None:
    torch.manual_seed(2)
    stage = build_stage("coarse", small_config(condition_dropout=0.1)).eval()
    conditioning, known = conditioning_of(stage, 2), random_ids(stage, -1, 2, time=2)
    without = [torch.full_like(ids, PADDING) for ids in conditioning]
    sampling, streams = Sampling(0.8, cfg_scale=cfg_scale), [sample_rng(4, "p", row, "coarse") for row in range(2)]
    generated = stage_generator(stage).generate(conditioning, known, 6, sampling, streams, lambda: None).flatten(1)
    sequence = torch.cat((known.flatten(1), generated), dim=1).unflatten(1, (-1, stage.predicted.quantizers))
    passes = [stage.training_logits([*fixed, sequence], [False] * 3)[0][-1] for fixed in (conditioning, without)]
    assert passes[0] is not None
    assert passes[1] is not None
    logits = passes[1] + cfg_scale * (passes[0] - passes[1])
    streams = [sample_rng(4, "p", row, "coarse") for row in range(2)]
    noise = gumbel_noise(streams, generated.shape[1], stage.predicted.codebook_size + 1, CPU)
    plain = Sampling(0.8)
    for number, draw in enumerate(noise):
        expected = sample(logits[:, known.flatten(1).shape[1] + number, :-1], draw[:, :-1], plain)
        assert torch.equal(generated[:, number], expected)


def test_guidance_of_a_stage_without_condition_dropout_is_refused() -> None:
    generator = stage_generator(build_stage("semantic", small_config()))
    generator.check(Sampling())
    with pytest.raises(UserError, match="condition_dropout"):
        generator.check(Sampling(cfg_scale=2.0))


@pytest.mark.parametrize("changed", ["clap", "semantic"])
@pytest.mark.parametrize(("condition_dropout", "same"), [(0.0, False), (0.999999, True)])
def test_condition_dropout_hides_all_conditioning_in_training_only(
    condition_dropout: float, same: bool, changed: str
) -> None:
    torch.manual_seed(0)
    config = small_config(condition_dropout=condition_dropout, ff_dropout=0.0, use_conv_ff=False)
    stage = build_stage("coarse", config)
    ids = {kind.name: random_ids(stage, index, 4, 9) for index, kind in enumerate(stage.sequences)}
    other = {**ids, changed: (ids[changed] + 1) % 11}
    seeds = torch.arange(4, dtype=torch.int32)

    def losses() -> list[float]:
        return [float(stage(list(given.values()), seeds=seeds).loss.detach()) for given in (ids, other)]

    stage.train()
    assert (losses()[0] == losses()[1]) is same
    stage.eval()
    assert losses()[0] != losses()[1]
