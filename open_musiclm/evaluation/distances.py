"""Distances between the embeddings of two sets, as figures."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from open_musiclm.evaluation.figures import Figure, Metric, PerClip, median
from open_musiclm.evaluation.vectors import ClipVectors, sample_note, some_vectors
from open_musiclm.metrics import frechet, kernel_distance
from open_musiclm.metrics.density import NEAREST, covered, density_of_each
from open_musiclm.metrics.intervals import (
    Estimate,
    groups_of,
    normal_interval,
    percentile_interval,
    resampling_weights,
)
from open_musiclm.metrics.mauve import Buckets, cluster, mauve_divergence

MOST_VECTORS = 20_000  # of a set, if the work grows with its square
MOST_CLUSTERED = 5000  # of a set: the paper on MAUVE takes so many; the work grows with the square, times a hundred
FEW_VECTORS, FEW_CLIPS, FEW_FOR_MEANS = 1000, 100, 30

FAD = Metric("fad", "FAD", "lower", "CLAP windows of 10 s every second, all of a set pooled (fadtk)")
FAD_INF = Metric("fad_inf", "FAD-inf", "lower", "limit over 1 / size of 25 sizes; interval of the regression alone")
PER_SONG = Metric("fad_per_song", "FAD of one song, median", "lower", "each clip's own windows against the reference")
KAD = Metric("kad", "KAD, bandwidth of the reference", "lower", "CLAP windows; bandwidth as in the paper")
KADTK = Metric("kad_kadtk", "KAD, bandwidth of the set", "lower", "CLAP windows; bandwidth as in the package kadtk")
DENSITY = Metric(
    "density", "density", "higher", f"one CLAP embedding a clip, k = {NEAREST}; about 1 where sets are alike"
)
COVERAGE = Metric("coverage", "coverage", "higher", f"one CLAP embedding a clip, k = {NEAREST}; 1 at most")


@dataclass(frozen=True)
class Resampling:
    """The seed, and the number of resamplings for the interval of a distance."""

    seed: int
    replicates: int

    def rng(self) -> np.random.Generator:
        """A generator that starts at the seed."""
        return np.random.default_rng(self.seed)


def frechet_figure(metric: Metric, evaluated: ClipVectors, reference: ClipVectors, resampling: Resampling) -> Figure:
    """The Fréchet distance, clips of both sets resampled for its interval."""
    rng = resampling.rng()
    sizes, warning = _clip_counts(evaluated, reference), few_vectors(evaluated, reference)

    def estimate() -> Estimate:
        moments = [_moments(own, rng) for own in (evaluated, reference)]
        value = frechet.frechet_between(*(own.gaussian() for own in moments))
        replicates = []
        for _ in range(resampling.replicates if min(sizes) > 1 else 0):
            weights = [resampling_weights(len(own.counts), rng) for own in moments]
            drawn = [own.gaussian(weight) for own, weight in zip(moments, weights, strict=True)]
            replicates.append(frechet.frechet_between(*drawn))
        return normal_interval(value, replicates, least=0.0)

    return metric.try_figure(estimate, *sizes, warning)


def extrapolated_figure(
    evaluated: ClipVectors, reference: ClipVectors, resampling: Resampling
) -> tuple[Figure, frechet.Extrapolation | None]:
    """FAD-inf, and the distances that it was extrapolated from."""
    sizes = _clip_counts(evaluated, reference)
    try:
        gaussian = frechet.gaussian_of(reference.vectors)
        found = frechet.frechet_inf(evaluated.vectors, gaussian, resampling.rng())
    except ValueError as error:
        return FAD_INF.absent(f"none: {error}", *sizes), None
    half = 1.96 * found.standard_error
    warning = None
    if len(evaluated.vectors) < 2 * frechet.SMALLEST_SIZE:
        warning = f"sizes begin at {found.sizes[0]} windows, not at {frechet.SMALLEST_SIZE} as in fadtk"
    estimate = Estimate(found.intercept, found.intercept - half, found.intercept + half)
    return FAD_INF.figure(estimate, *sizes, warning), found


def per_song_figure(evaluated: ClipVectors, reference: ClipVectors, resampling: Resampling) -> tuple[Figure, PerClip]:
    """The median FAD of a single clip, and that of each."""
    sizes = _clip_counts(evaluated, reference)
    try:
        gaussian = frechet.gaussian_of(reference.vectors)
    except ValueError as error:
        return PER_SONG.absent(f"none: {error}", *sizes), {}
    each = frechet.frechet_of_each(evaluated.of_each(), gaussian)
    known = each[each.isfinite()]
    if not len(known):
        return PER_SONG.absent("none: all clips are shorter than two windows", *sizes), {}
    estimate = percentile_interval(known, median, resampling.rng())
    return PER_SONG.figure(estimate, len(known), sizes[1]), {PER_SONG.key: each}


def kernel_figures(evaluated: ClipVectors, reference: ClipVectors, resampling: Resampling) -> list[Figure]:
    """KAD with the bandwidth of either set, clips of both sets resampled for the intervals."""
    sizes, rng = _clip_counts(evaluated, reference), resampling.rng()
    sets = (_grouped(evaluated, rng), _grouped(reference, rng))
    warning, note = few_clips(*sizes), _sampled("vectors", MOST_VECTORS, evaluated, reference)

    def estimate(bandwidth_of: int) -> Estimate:
        bandwidth = kernel_distance.median_distance(sets[bandwidth_of].vectors, rng)
        if not bandwidth:
            raise ValueError("all vectors of the set are the same")
        sums = kernel_distance.kernel_sums(sets[0], sets[1], bandwidth)
        replicates = []
        for _ in range(resampling.replicates if min(sizes) > 1 else 0):
            weights = [resampling_weights(own.count, rng) for own in sets]
            with suppress(ValueError):  # one clip of one window, drawn again and again, has no pair
                replicates.append(sums.distance(*weights))
        return normal_interval(sums.distance(), replicates)

    return [
        KAD.with_note(note).try_figure(lambda: estimate(1), *sizes, warning),
        KADTK.with_note(note).try_figure(lambda: estimate(0), *sizes, warning),
    ]


def density_figures(
    evaluated: ClipVectors, reference: ClipVectors, resampling: Resampling
) -> tuple[list[Figure], PerClip]:
    """Density, evaluated clips resampled; coverage, reference clips resampled; the density of each clip."""
    sizes, rng = _clip_counts(evaluated, reference), resampling.rng()
    left, right = (some_vectors(own, MOST_VECTORS, rng).vectors for own in (evaluated, reference))
    warning = few_clips(*sizes)
    if max(sizes) > 2 * min(sizes):
        warning = f"{sizes[0]} clips against {sizes[1]}: coverage grows with the set, compare sets of one size"
    try:
        densities, is_covered = density_of_each(left, right), covered(left, right).double()
    except ValueError as error:
        return [metric.absent(f"none: {error}", *sizes) for metric in (DENSITY, COVERAGE)], {}
    note = _sampled("clips", MOST_VECTORS, evaluated, reference)
    figures = [
        metric.with_note(note).figure(percentile_interval(values, torch.mean, rng), *sizes, warning)
        for metric, values in ((DENSITY, densities), (COVERAGE, is_covered))
    ]
    return figures, {DENSITY.key: densities} if len(left) == len(evaluated.vectors) else {}


def divergence_figure(metric: Metric, evaluated: ClipVectors, reference: ClipVectors, resampling: Resampling) -> Figure:
    """-ln MAUVE, clips resampled within the clusters for its interval."""
    sizes, rng = _clip_counts(evaluated, reference), resampling.rng()
    warning = f"{max(2, round(min(sizes) / 10))} clusters only" if min(sizes) < FEW_CLIPS else None

    def estimate() -> Estimate:
        left, right = (some_vectors(own, MOST_CLUSTERED, rng).vectors for own in (evaluated, reference))
        buckets = cluster(left, right, resampling.seed)
        replicates = []
        for _ in range(resampling.replicates):
            drawn = Buckets(_drawn(buckets.evaluated, rng), _drawn(buckets.reference, rng), buckets.count)
            replicates.append(mauve_divergence(drawn))
        return normal_interval(mauve_divergence(buckets), replicates, least=0.0)

    note = _sampled("clips", MOST_CLUSTERED, evaluated, reference)
    return metric.with_note(note).try_figure(estimate, *sizes, warning)


def few_vectors(evaluated: ClipVectors, reference: ClipVectors) -> str | None:
    """A warning if a covariance is singular, or computed from few vectors."""
    fewest, dim = min(len(evaluated.vectors), len(reference.vectors)), evaluated.vectors.shape[1]
    if fewest <= dim:
        return f"{fewest} vectors of {dim} dimensions: the covariance is singular, the value far too high"
    return f"{fewest} vectors only: the value is too high" if fewest < FEW_VECTORS else None


def few_clips(*sizes: int) -> str | None:
    """A warning if a set has few clips for a distance."""
    return f"{min(sizes)} clips only" if min(sizes) < FEW_CLIPS else None


def few_for_means(clips: int) -> str | None:
    """A warning if there are few clips for a mean, a median or a share."""
    return f"{clips} clips only" if clips < FEW_FOR_MEANS else None


def _clip_counts(evaluated: ClipVectors, reference: ClipVectors) -> tuple[int, int]:
    return int(evaluated.clips[-1]) + 1, int(reference.clips[-1]) + 1


def _moments(own: ClipVectors, rng: np.random.Generator) -> frechet.Moments:
    groups = groups_of(int(own.clips[-1]) + 1, rng)
    return frechet.Moments.of(own.vectors, groups[own.clips], int(groups.max()) + 1)


def _sampled(what: str, most: int, *sets: ClipVectors) -> str:
    return sample_note(what, most, *(len(own.vectors) for own in sets))


def _grouped(own: ClipVectors, rng: np.random.Generator) -> kernel_distance.GroupedSet:
    groups = groups_of(int(own.clips[-1]) + 1, rng)
    some = some_vectors(own, MOST_VECTORS, rng)
    return kernel_distance.GroupedSet(some.vectors, groups[some.clips], int(groups.max()) + 1)


def _drawn(labels: Int[np.ndarray, "vectors"], rng: np.random.Generator) -> Int[np.ndarray, "vectors"]:
    return labels[rng.integers(len(labels), size=len(labels))]
