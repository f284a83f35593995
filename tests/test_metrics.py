"""Each metric against values of the packages that define it, or against its formula written out."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from helpers.metric_sets import SEED_OF_DRAWS, clustered_sets, random_sets
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from open_musiclm.metrics import adherence, density, frechet, kernel_distance
from open_musiclm.metrics.adherence import chance_rank, cosines, prompt_ranks, sound_ranks
from open_musiclm.metrics.intervals import (
    MOST_GROUPS,
    groups_of,
    normal_interval,
    percentile_interval,
    resampling_weights,
)
from open_musiclm.metrics.kl_divergence import EPSILON, kl_divergence
from open_musiclm.metrics.levels import clipped_share, silent_share
from open_musiclm.metrics.mauve import Buckets, cluster, mauve, mauve_divergence
from open_musiclm.metrics.tempo import FAST, SLOW, fits, named_bpm, named_class, same_tempo, same_tempo_but_for_octave
from open_musiclm.metrics.transport import centroid_distances, matching_cost

VALUES = json.loads((Path(__file__).parent / "golden" / "metrics" / "values.json").read_text())


def whole(vectors: torch.Tensor) -> kernel_distance.GroupedSet:
    """All vectors in one group."""
    return kernel_distance.GroupedSet(vectors, torch.zeros(len(vectors)).long(), 1)


def kad(evaluated: torch.Tensor, reference: torch.Tensor, bandwidth: float) -> float:
    """The distance of two sets without groups."""
    return kernel_distance.kernel_sums(whole(evaluated), whole(reference), bandwidth).distance()


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    evaluated, reference = random_sets()
    return torch.from_numpy(evaluated), torch.from_numpy(reference)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks far smaller than the sets, and no divisor of them."""
    monkeypatch.setattr(frechet, "ROWS_AT_ONCE", 97)
    monkeypatch.setattr(kernel_distance, "_ROWS_AT_ONCE", 97)
    monkeypatch.setattr(density, "_ROWS_AT_ONCE", 97)


def test_frechet_distances_are_those_of_fadtk(sets):
    evaluated, reference = sets
    gaussian = frechet.gaussian_of(reference)
    assert frechet.frechet_distance(evaluated, reference) == pytest.approx(VALUES["fad"], rel=1e-9)
    songs = [evaluated[first : first + 4] for first in range(0, 20, 4)]
    assert frechet.frechet_of_each(songs, gaussian).tolist() == pytest.approx(VALUES["per_song"], rel=1e-6)
    found = frechet.frechet_inf(evaluated, gaussian, np.random.default_rng(SEED_OF_DRAWS))
    assert found.intercept == pytest.approx(VALUES["fad_inf"], rel=1e-8)
    assert found.slope == pytest.approx(VALUES["fad_inf_slope"], rel=1e-6)


def test_the_standard_error_of_fad_inf_is_that_of_the_regression(sets):
    evaluated, reference = sets
    found = frechet.frechet_inf(evaluated, frechet.gaussian_of(reference), np.random.default_rng(0))
    line = scipy.stats.linregress(1 / np.array(found.sizes), found.distances)
    assert found.standard_error == pytest.approx(line.intercept_stderr, rel=1e-9)


def test_kernel_distances_are_those_of_kadtk(sets):
    evaluated, reference = sets
    rng = np.random.default_rng(0)
    for name, own in (("evaluated", evaluated), ("reference", reference)):
        bandwidth = kernel_distance.median_distance(own, rng)
        assert bandwidth == pytest.approx(VALUES[f"median_{name}"], rel=1e-6)
        distance = kad(evaluated, reference, bandwidth)
        assert distance == pytest.approx(VALUES[f"kad_{name}"], rel=1e-5)
    exact = kad(evaluated, reference, VALUES["median_evaluated"])
    assert exact == pytest.approx(VALUES["kad_evaluated"], rel=1e-10)


def test_density_and_coverage_are_those_of_prdc(sets):
    evaluated, reference = sets
    assert float(density.density_of_each(evaluated, reference).mean()) == pytest.approx(VALUES["density"], abs=1e-12)
    assert float(density.covered(evaluated, reference).double().mean()) == pytest.approx(VALUES["coverage"], abs=1e-12)


def test_the_divergence_is_that_of_mauve_text():
    evaluated, reference = (torch.from_numpy(vectors) for vectors in clustered_sets())
    buckets = cluster(evaluated, reference, seed=0)
    assert buckets.count == VALUES["buckets"]
    found = sorted(zip(*buckets.histograms(), strict=True))
    expected = sorted(zip(*VALUES["histograms"].values(), strict=True))
    assert np.array(found) == pytest.approx(np.array(expected))
    assert mauve(*buckets.histograms()) == pytest.approx(VALUES["mauve"], rel=1e-12)
    assert mauve_divergence(buckets) == pytest.approx(-math.log(VALUES["mauve"]))


def test_equal_histograms_have_no_divergence():
    labels = np.array([0, 0, 1, 2])
    assert mauve_divergence(Buckets(labels, labels, 3)) == pytest.approx(0, abs=1e-4)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_change_nothing(sets):
    evaluated, reference = sets
    assert frechet.frechet_distance(evaluated, reference) == pytest.approx(VALUES["fad"], rel=1e-9)
    found = kad(evaluated, reference, VALUES["median_evaluated"])
    assert found == pytest.approx(VALUES["kad_evaluated"], rel=1e-10)
    assert float(density.density_of_each(evaluated, reference).mean()) == pytest.approx(VALUES["density"], abs=1e-12)
    assert float(density.covered(evaluated, reference).double().mean()) == pytest.approx(VALUES["coverage"], abs=1e-12)


def test_weights_of_groups_are_copies_of_their_vectors(sets):
    evaluated, _ = sets
    groups = torch.arange(len(evaluated)) % 3
    moments = frechet.Moments.of(evaluated, groups, 3)
    copied = torch.cat((evaluated[groups == 0], evaluated[groups == 0], evaluated[groups == 2]))
    expected = frechet.gaussian_of(copied)
    found = moments.gaussian(torch.tensor([2.0, 0.0, 1.0]))
    assert found.count == expected.count
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.covariance, expected.covariance)
    torch.testing.assert_close(moments.gaussian().covariance, torch.cov(evaluated.T))


def test_weighted_kernel_sums_leave_out_groups(sets):
    evaluated, reference = (vectors[:60] for vectors in sets)
    groups = torch.arange(60) % 3
    grouped = kernel_distance.GroupedSet(evaluated, groups, 3)
    sums = kernel_distance.kernel_sums(grouped, whole(reference), 2.0)
    found = sums.distance(torch.tensor([1.0, 0.0, 1.0]), torch.ones(1))
    expected = kad(evaluated[groups != 1], reference, 2.0)
    assert found == pytest.approx(expected, rel=1e-10)


def test_the_kernel_distance_is_its_formula(sets):
    left, right = (vectors[:40].numpy() for vectors in sets)
    within = [np.exp(-(cdist(x, x) ** 2) / (2 * 1.5**2)) for x in (left, right)]
    means = [(kernel.sum() - len(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in within]
    between = np.exp(-(cdist(left, right) ** 2) / (2 * 1.5**2)).mean()
    found = kad(torch.from_numpy(left), torch.from_numpy(right), 1.5)
    assert found == pytest.approx(100 * (sum(means) - 2 * between), rel=1e-6)


def test_too_few_vectors_are_refused(sets):
    one, many = sets[0][:1], sets[1]
    refused = (
        lambda: frechet.gaussian_of(one),
        lambda: frechet.frechet_inf(sets[0][:7], frechet.gaussian_of(many), np.random.default_rng(0)),
        lambda: kernel_distance.median_distance(one, np.random.default_rng(0)),
        lambda: kad(one, many, 1.0),
        lambda: density.covered(many, many[:5]),
        lambda: cluster(one, many, seed=0),
    )
    for call in refused:
        with pytest.raises(ValueError, match=r"take"):
            call()
    assert math.isnan(float(frechet.frechet_of_each([one], frechet.gaussian_of(many))[0]))


def test_ranks_and_cosines():
    prompts = torch.eye(3)
    sounds = torch.tensor([[1.0, 0.2, 0.1], [0.1, 1.0, 0.3], [0.9, 0.1, 0.5], [2.0, 2.0, 2.0]])
    own = [0, 1, 2, 0]
    assert prompt_ranks(sounds, prompts, own).tolist() == [1, 1, 2, 3]  # equal to all: the worst rank
    assert sound_ranks(sounds, prompts, own).tolist() == [1, 1, 2]
    assert sound_ranks(sounds, prompts, own, torch.tensor([2, 0])).tolist() == [2, 1]
    expected = [float(s @ p / s.norm()) for s, p in zip(sounds.double(), prompts.double()[own], strict=True)]
    assert cosines(sounds, prompts[own]).tolist() == pytest.approx(expected)


def test_ranks_in_blocks_are_those_of_sorting(monkeypatch):
    monkeypatch.setattr(adherence, "ROWS_AT_ONCE", 7)
    rng = torch.Generator().manual_seed(0)
    prompts, own = torch.randn(23, 5, generator=rng), torch.arange(50) % 23
    sounds = prompts[own] + torch.randn(50, 5, generator=rng)
    prompts[1] = 3 * prompts[0]  # two prompts that CLAP does not tell apart
    unit = [torch.nn.functional.normalize(vectors.double(), dim=1) for vectors in (sounds, prompts)]
    similarities = unit[0] @ unit[1].T
    expected = [
        1 + sum(row[n] >= row[mine] - 1e-6 for n in range(23) if n != mine)
        for row, mine in zip(similarities, own, strict=True)
    ]
    assert prompt_ranks(sounds, prompts, own.tolist()).tolist() == expected
    best = [max(similarities[n, prompt] for n in range(50) if own[n] == prompt) for prompt in range(23)]
    foreign = [[similarities[n, prompt] for n in range(50) if own[n] != prompt] for prompt in range(23)]
    expected = [1 + sum(other >= most - 1e-6 for other in others) for most, others in zip(best, foreign, strict=True)]
    assert sound_ranks(sounds, prompts, own.tolist()).tolist() == expected


@pytest.mark.parametrize("each", [1, 4])
def test_the_rank_at_chance_level(each: int) -> None:
    prompts, generator = 64, torch.Generator().manual_seed(0)
    own = torch.arange(prompts).repeat(each)
    vectors = [torch.randn(count, 32, generator=generator) for count in (prompts * each, prompts)]
    found = [
        float(sound_ranks(vectors[0], vectors[1][torch.randperm(prompts, generator=generator)], own.tolist()).median())
        for _ in range(30)
    ]
    expected = chance_rank(prompts * each, np.full(prompts, each))
    assert np.mean(found) == pytest.approx(expected, rel=0.1)
    assert chance_rank(5, np.array([5, 5, 1])) == 1
    assert chance_rank(1, np.array([1])) == 1


def test_kl_has_a_direction():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.5, 0.25]])
    assert float(kl_divergence(p, q)) == pytest.approx(0.5 * math.log(2), abs=1e-5)
    assert float(kl_divergence(q, p)) == pytest.approx(0.25 * math.log(0.5) + 0.25 * math.log(0.25 / EPSILON), abs=1e-5)


def test_tempo_words_and_numbers():
    assert named_bpm("a tune at 120 beats per minute") == 120
    assert named_bpm("techno, 128bpm, dark") == 128
    assert named_bpm("a 92-bpm groove") == 92
    assert named_bpm("from 90 bpm to 120 bpm") is None
    assert named_bpm("92.25 BPM, in C") == 92.25
    assert named_bpm("a tempo of 107.67 bpm") == 107.67
    assert named_bpm("80-120 bpm") is None
    assert named_bpm("80 to 120 bpm") is None
    assert named_bpm("a waltz between 90 and 100 bpm") is None
    assert named_bpm("90 or 100 bpm") is None
    assert named_bpm("90—100 bpm") is None
    assert named_bpm("bpm: 120, key: C") == 120
    assert named_bpm("a BPM of 98.5.") == 98.5
    assert named_bpm("bpm=90-100") is None
    assert named_bpm("120 bpm, 4/4") == 120
    assert named_bpm("999 bpm") is None
    assert named_bpm("top 40 hit") is None
    assert named_class("a slow, sad tune") is SLOW
    assert named_class("Up-tempo dance") is FAST
    assert named_class("fast-paced techno") is FAST
    assert named_class("first slow, then fast") is None
    assert named_class("breakfast") is None
    assert same_tempo(124, 120)
    assert not same_tempo(60, 120)
    assert same_tempo_but_for_octave(60, 120)
    assert not same_tempo_but_for_octave(80, 120)
    assert fits(60, SLOW)
    assert not fits(80, SLOW)


def test_clipping_and_silence():
    wave = torch.zeros(24000)
    wave[:2] = 1.0  # a peak
    assert clipped_share(wave) == 0
    wave[100:110] = -1.0
    wave[110:113] = 1.0
    assert clipped_share(wave) == pytest.approx(13 / 24000)
    assert clipped_share(torch.zeros(2)) == 0
    assert silent_share(torch.cat((torch.zeros(12000), torch.full((12000,), 0.1))), 24000) == pytest.approx(0.5)
    assert silent_share(torch.zeros(10), 24000) == 1.0


@settings(max_examples=30, deadline=None)
@given(
    left=st.lists(st.integers(0, 4), min_size=6, max_size=6), right=st.lists(st.integers(0, 4), min_size=6, max_size=6)
)
def test_the_matching_cost_is_the_optimal_transport_of_histograms(left, right):
    centroids = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    distances = centroid_distances(centroids)
    found = matching_cost(torch.tensor(left), torch.tensor(right), distances)
    masses = [np.bincount(tokens, minlength=5) / 6 for tokens in (left, right)]
    sums = np.zeros((10, 25))
    for code in range(5):
        sums[code, 5 * code : 5 * code + 5] = 1
        sums[5 + code, code::5] = 1
    program = scipy.optimize.linprog(distances.ravel(), A_eq=sums, b_eq=np.concatenate(masses))
    assert found == pytest.approx(program.fun, abs=1e-9)


def test_clips_of_a_prompt_are_resampled_together() -> None:
    """Four clips of each of 30 prompts, which differ less than the prompts."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=30)
    values = torch.from_numpy(np.repeat(means, 4) + 0.01 * rng.normal(size=120))
    prompts = [f"prompt {number}" for number in np.repeat(np.arange(30), 4)]
    together = percentile_interval(values, torch.mean, rng, groups=prompts)
    apart = percentile_interval(values, torch.mean, rng)
    of_means = percentile_interval(torch.from_numpy(means), torch.mean, rng)
    assert together.groups == 30
    assert together.value == apart.value
    assert together.high - together.low == pytest.approx(of_means.high - of_means.low, rel=0.1)
    assert apart.high - apart.low < 0.6 * (together.high - together.low)


def test_intervals_hold_what_they_should():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(3.0, 1.0, 400))
    mean = percentile_interval(values, torch.mean, rng)
    assert mean.value == pytest.approx(float(values.mean()))
    assert mean.low == pytest.approx(mean.value - 1.96 / 20, abs=0.03)
    assert mean.high == pytest.approx(mean.value + 1.96 / 20, abs=0.03)
    assert percentile_interval(values[:1], torch.mean, rng).low is None
    normal = normal_interval(0.1, list(rng.normal(5, 1, 2000)), least=0)
    assert normal.low == 0
    assert normal.high == pytest.approx(2.06, abs=0.1)
    weights = resampling_weights(40, rng)
    assert float(weights.sum()) == 40
    assert groups_of(40, rng).tolist() == list(range(40))
    sizes = torch.bincount(groups_of(1050, rng))
    assert len(sizes) == MOST_GROUPS
    assert set(sizes.tolist()) == {10, 11}
