"""The atlas's measures against direct formulas, and on planted structures whose answer is known."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from open_musiclm.analysis.arithmetic import cell_means, means_of_other_contexts, take_steps
from open_musiclm.analysis.gap_tables import corrections_table, gap_table, split_pairs
from open_musiclm.analysis.labels import LabelledSound
from open_musiclm.analysis.modality_gap import cca, distance_of_means, mean_shift, overlap, pls
from open_musiclm.analysis.probes import probe
from open_musiclm.analysis.projection import pca_map, umap_map
from open_musiclm.analysis.report import Table, mean_cell
from open_musiclm.analysis.retrieval import rank
from open_musiclm.analysis.space import Space, normalized
from open_musiclm.analysis.token_statistics import (
    agreement,
    decode_tokens,
    most_used,
    nearest,
    perplexity,
    reconstructions,
    residual_energy,
    usage,
)
from open_musiclm.errors import UserNotice
from open_musiclm.metrics.adherence import chance_recall


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# Confidence


def test_an_interval_is_that_of_the_normal_distribution() -> None:
    values = normal(400)
    estimate = mean_cell(values)
    error = values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_values_of_one_group_count_once() -> None:
    values, groups = np.repeat(normal(50), 20), np.repeat(np.arange(50), 20)
    assert mean_cell(values, groups).groups == 50
    single, repeated = mean_cell(normal(50)), mean_cell(values, groups)
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))


# Retrieval


def test_ranks_are_those_of_sorting() -> None:
    queries, items = normal(30, 8), normal(70, 8, seed=1)
    rng = np.random.default_rng(2)
    relevant = [rng.choice(70, size=rng.integers(1, 15), replace=False) for _ in range(30)]
    found = rank(queries, items, relevant)
    for query, own, place, precision in zip(queries, relevant, found.places, found.average_precision, strict=True):
        order = np.argsort(-(items @ query))
        hits = np.isin(order, own)
        assert place == 1 + hits.argmax()
        direct = sum(hits[: k + 1].mean() for k in range(10) if hits[k]) / min(len(own), 10)
        assert precision == pytest.approx(direct)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, items = normal(20, 8), normal(33, 8, seed=1)
    relevant = [np.array([number]) for number in range(20)]
    whole = rank(queries, items, relevant)
    monkeypatch.setattr("open_musiclm.analysis.retrieval._BLOCK_NUMBERS", 1)
    one = rank(queries, items, relevant)
    assert np.array_equal(whole.places, one.places)


def test_equal_items_are_in_random_order() -> None:
    items = np.ones((100, 4))
    found = rank(np.ones((100, 4)), items, [np.array([number]) for number in range(100)])
    assert sorted(found.places) == list(range(1, 101))
    assert found.recall(10).mean() == 0.1
    assert found.chance[:, 2].mean() == pytest.approx(0.1)


def test_the_recall_at_chance_level() -> None:
    rng = np.random.default_rng(0)
    hits = [np.isin(rng.permutation(20)[:5], [0, 1, 2]).any() for _ in range(20_000)]
    assert chance_recall(20, np.array([3, 20]), 5) == pytest.approx([np.mean(hits), 1.0], abs=0.01)


# Tokens


def planted_tokens() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors that two levels of codes make up but for a small rest."""
    rng = np.random.default_rng(0)
    codebooks = np.stack([rng.normal(size=(6, 5)), 0.3 * rng.normal(size=(6, 5))])
    tokens = rng.integers(6, size=(500, 2))
    return codebooks[0, tokens[:, 0]] + codebooks[1, tokens[:, 1]] + 0.01 * rng.normal(size=(500, 5)), tokens, codebooks


def test_energy_left_is_one_minus_r_squared() -> None:
    vectors, tokens, codebooks = planted_tokens()
    left = residual_energy(vectors, tokens, codebooks)
    total = np.square(vectors - vectors.mean(0)).sum()
    for level, reconstructed in enumerate(reconstructions(tokens, codebooks)):
        assert left[level] == pytest.approx(np.square(vectors - reconstructed).sum() / total)
    assert left[1] < 0.001 < left[0] < 0.5
    np.testing.assert_allclose(
        decode_tokens(tokens, codebooks), codebooks[0][tokens[:, 0]] + codebooks[1][tokens[:, 1]]
    )
    np.testing.assert_allclose(decode_tokens(tokens[:, :1], codebooks), codebooks[0][tokens[:, 0]])


def test_vectors_that_are_all_the_same_have_no_energy_to_be_left() -> None:
    _, tokens, codebooks = planted_tokens()
    left = residual_energy(np.full((500, 5), 1 / 3, np.float32), tokens, codebooks)
    assert np.isnan(left).all()
    table = Table("", "", ("level", "energy left"), [[1, float(left[0])]])
    assert table.text()[-1].split() == ["1", "none"]


def test_agreement_by_hand() -> None:
    sounds = np.array([[0, 1], [0, 2], [1, 1], [1, 1]])
    texts = np.array([[0, 1], [1, 2], [1, 0], [0, 1]])
    found = agreement(sounds, texts)
    assert found.equal.tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]
    assert found.equal_so_far.tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]
    assert found.chance == pytest.approx([0.5, 0.75 * 0.5 + 0.25 * 0.25])


def test_usage_perplexity_and_the_most_used() -> None:
    tokens = np.array([3, 3, 1, 1, 0, 0, 3, 3])
    assert usage(tokens, 8) == 3 / 8
    assert perplexity(np.arange(8), 8) == pytest.approx(8)
    assert perplexity(tokens, 8) == pytest.approx(2 ** (0.5 * 1 + 2 * 0.25 * 2))
    assert most_used(tokens, 2) == [(3, 4), (0, 2)]
    assert nearest(np.zeros(2), np.array([[3.0, 0], [1, 0], [0, 2]]), 2).tolist() == [1, 2]


# The modality gap


def apart() -> tuple[np.ndarray, np.ndarray]:
    """Sounds, and texts that are the same but for a constant."""
    sounds = normalized(normal(300, 6))
    return sounds, sounds + 0.05 * normal(300, 6, seed=1) + np.array([3.0, 0, 0, 0, 0, 0])


def test_what_lies_apart_and_what_is_mixed() -> None:
    sounds, texts = apart()
    assert distance_of_means(sounds, texts) == pytest.approx(3.0, abs=0.02)
    assert overlap(sounds, texts).mean() == 0
    assert overlap(normal(300, 6), normal(200, 6, seed=1)).mean() == pytest.approx(1, abs=0.05)


def forty_sounds() -> Space:
    """Each has a caption of its own, and all have one in common."""
    pairs = np.array([(sound, text) for sound in range(40) for text in (sound, 40)])
    sounds = [LabelledSound(Path(f"{number}.wav"), (), {}) for number in range(40)]
    nothing = [np.zeros((count, 0), dtype=np.int64) for count in (40, 41)]
    vectors = normalized(normal(41, 6))
    return Space(sounds, [""] * 41, vectors[:40], vectors, pairs, np.zeros((0, 1, 6)), *nothing)


def test_two_sounds_are_two_different_ones() -> None:
    space = forty_sounds()
    cosines = space.sound_vectors @ space.sound_vectors.T
    found = dict(gap_table(space).lines)["mean cosine of any two sounds"]
    assert found == pytest.approx(cosines[~np.eye(40, dtype=bool)].mean(), abs=1e-6)


def test_corrections_are_measured_on_other_sounds_and_captions() -> None:
    space = forty_sounds()
    fitted, held_out = split_pairs(space)
    assert len(fitted) == 40
    assert not set(fitted[:, 0]) & set(held_out[:, 0])
    assert sorted(held_out[:, 1]) == sorted(set(range(40)) - set(fitted[:, 1]))
    np.testing.assert_allclose(space.cosines()[::2], 1)
    none, *corrected = corrections_table(space, fitted, held_out, None).lines
    assert none[0] == "none"
    assert none[3].value == 1  # texts are their sounds
    assert len(corrected) == 3


def test_a_shift_closes_a_gap_that_is_a_shift() -> None:
    sounds, texts = apart()
    corrected = mean_shift(texts[:150], sounds[:150])(texts)
    assert distance_of_means(sounds[150:], corrected[150:]) < 0.05
    assert (corrected[150:] * sounds[150:]).sum(1).mean() > 0.98


@pytest.mark.parametrize("fit", [pls, cca])
def test_regressions_find_a_linear_map(fit) -> None:
    texts = normal(400, 6) * np.arange(1, 7)
    sounds = normalized(texts @ normal(6, 6, seed=1) * 0.1 + 0.2)
    sounds_of = texts @ normal(6, 6, seed=1) * 0.1 + 0.2
    corrected = fit(texts[:200], sounds_of[:200], 6)(texts)
    assert (corrected[200:] * sounds[200:]).sum(1).min() > 0.99
    worse = fit(texts[:200], sounds_of[:200], 1)(texts)
    assert (worse[200:] * sounds[200:]).sum(1).mean() < (corrected[200:] * sounds[200:]).sum(1).mean()


@pytest.mark.parametrize("fit", [pls, cca])
@pytest.mark.parametrize("rank", [0, 2])
def test_texts_of_less_than_full_rank(fit, rank: int) -> None:
    """Few different captions: the means agree afterwards, nothing is NaN, and scikit-learn says nothing."""
    texts, sounds = (
        np.full((60, 16), 0.25) + normal(60, rank) @ normal(rank, 16),
        normalized(normal(60, 16, seed=1) + 1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        correction = fit(texts, sounds, 15)
    moved = texts @ correction.matrix.T + correction.shift
    np.testing.assert_allclose(moved.mean(axis=0), sounds.mean(axis=0), atol=1e-6)
    assert np.isfinite(correction(texts)).all()


def test_canonical_correlations_are_scikit_learns() -> None:
    texts = normal(2000, 4)
    sounds = texts @ normal(4, 4, seed=1) + 2 * normal(2000, 4, seed=2)
    correction = cca(texts, sounds, 1)
    u, v = CCA(1).fit(texts, sounds).transform(texts, sounds)
    expected = np.corrcoef(u[:, 0], v[:, 0])[0, 1]
    direction = np.linalg.svd(correction.matrix)[2][0]
    assert abs(np.corrcoef(texts @ direction, u[:, 0])[0, 1]) > 0.999
    # the explained part of the sounds has the correlation as its length in whitened space
    explained = (texts - texts.mean(0)) @ correction.matrix.T
    whitened = explained @ np.linalg.inv(np.linalg.cholesky(np.cov(sounds.T, bias=True))).T
    assert np.sqrt(np.square(whitened).sum(1).mean()) == pytest.approx(expected, abs=0.01)


# Probes


def test_a_tag_that_is_a_direction_is_found_and_another_is_not() -> None:
    vectors = normal(400, 10)
    rng = np.random.default_rng(1)
    planted = np.array(["low", "middle", "high"])[np.digitize(vectors[:, 3], [-0.4, 0.4])]
    right = probe(vectors, planted)
    assert right.scores.mean() > 0.85
    assert right.chance == pytest.approx(np.unique(planted, return_counts=True)[1].max() / 400)
    noise = probe(vectors, rng.choice(["a", "b"], 400))
    assert mean_cell(noise.scores).low < noise.chance + 0.02
    number = probe(vectors, vectors @ np.arange(10.0) + normal(400, seed=2))
    assert number.scores.mean() > 0.97
    assert probe(vectors, rng.normal(size=400)).scores.mean() < 0.02


def test_groups_never_leak() -> None:
    """Five sounds of each album are almost equal, and albums have modes at random: only a leak tells the mode."""
    rng = np.random.default_rng(0)
    album = np.repeat(np.arange(120), 5)
    vectors = rng.normal(size=(120, 160))[album] + 0.01 * rng.normal(size=(600, 160))
    mode = rng.choice(["major", "minor"], 120)[album]
    assert probe(vectors, mode).scores.mean() > 0.95
    grouped = probe(vectors, mode, album)
    assert mean_cell(grouped.scores, grouped.groups).low < 0.5


@pytest.mark.parametrize("seed", range(8))
def test_a_class_that_two_groups_own_is_predicted(seed: int) -> None:
    """Both of them may be among the groups that a penalty is chosen with."""
    rng = np.random.default_rng(seed)
    groups = np.array([*range(30), *(30 + place % 2 for place in range(10))])
    tag = np.array(["a"] * 30 + ["b"] * 10)
    scores = probe(rng.normal(size=(40, 8)), tag, groups).scores
    assert scores.shape == (40,)
    assert scores[tag == "a"].mean() > 0.5


# Arithmetic


def test_sums_of_two_parts_are_solved_and_noise_is_not() -> None:
    tempo, instrument = normal(3, 1, 16), normal(1, 7, 16, seed=1)
    cells = tempo + instrument
    found = take_steps(cells, np.repeat(tempo, 7, axis=1), cells)
    assert len(found.nearest) == 3 * 2 * 7
    assert found.nearest.mean() == 1
    assert found.stays.mean() == 0
    assert take_steps(cells, means_of_other_contexts(cells), cells).nearest.mean() == 1
    noise = normal(3, 7, 64, seed=2)
    lost = take_steps(noise, np.zeros_like(noise), noise)
    assert lost.stays.mean() == 1
    assert lost.nearest_but_start.mean() < 0.3
    assert lost.chance_without_start == 1 / 20


def test_combinations_without_sounds_are_left_out() -> None:
    vectors = np.array([[1.0, 0], [3, 0], [0, 1], [5, 5]])
    cells = cell_means(vectors, np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), (2, 2))
    np.testing.assert_array_equal(cells[0], [[2, 0], [np.nan, np.nan]])
    others = means_of_other_contexts(cells)
    np.testing.assert_array_equal(others[1], [[5, 5], [0, 1]])
    np.testing.assert_array_equal(others[0], [[np.nan, np.nan], [2, 0]])
    assert len(take_steps(cells, np.zeros_like(cells), cells).nearest) == 2


# Maps


def test_pca_finds_the_plane() -> None:
    plane = normal(200, 2) * [5, 2]
    axes = np.linalg.qr(normal(10, 2, seed=1))[0]
    found, share = pca_map(plane @ axes.T + 0.01 * normal(200, 10, seed=2))
    assert share > 0.999
    assert abs(np.corrcoef(found[:, 0], plane[:, 0])[0, 1]) > 0.99
    assert pca_map(np.ones((1, 10)))[0].shape == (1, 2)


@pytest.mark.slow
def test_umap_keeps_clusters() -> None:
    pytest.importorskip("umap")
    centres = normal(3, 20) * 5
    points = umap_map(np.repeat(centres, 20, axis=0) + 0.1 * normal(60, 20, seed=1))
    assert points is not None
    means = points.reshape(3, 20, 2).mean(axis=1)
    spread = np.linalg.norm(points.reshape(3, 20, 2) - means[:, None], axis=-1).max()
    assert min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > spread


def test_without_umap_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.warns(UserNotice, match="umap-learn is not installed: the map has PCA only; pip install"):
        assert umap_map(normal(10, 4)) is None
