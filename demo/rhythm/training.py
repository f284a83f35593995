"""Fits a rhythm scorer in closed form, from stored semantic tokens and the captions of their sounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.rhythm.descriptors import describe_rhythm
from demo.rhythm.scorer import FILE_NAME, RhythmScorer
from open_musiclm.config import ModelConfig
from open_musiclm.data.captions import read_captions
from open_musiclm.data.crop_preparation import stored_name
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.mert import load_centroids

COMPONENTS = 4
FEWEST_SOUNDS = 50
_MOST_SOUNDS = 20000  # more would hardly change a covariance
_SHRINKAGE = 0.02  # towards equal variances, as a share of the mean variance
_LARGEST_CORRELATION = 0.99
_SMALLEST_SPREAD = 1e-6
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class ScorerTraining:
    """What a rhythm scorer is fitted to, and the folder it is written to."""

    model_config: ModelConfig
    tokens_folder: Path
    captions: Path
    kmeans_path: Path
    results_folder: Path
    overwrite: bool = False


def train_rhythm_scorer(training: ScorerTraining, device: torch.device) -> tuple[Path, int, RhythmScorer]:
    """Fits and writes a scorer; returns its file, the number of sounds and the scorer. Raises UserError."""
    config, target = training.model_config, training.results_folder / FILE_NAME
    if target.exists() and not training.overwrite:
        raise UserError(f"{target}: there already; give --overwrite or another --results_folder")
    centroids = load_centroids(training.kmeans_path, config)
    store = TokenStore(training.tokens_folder, config)
    captions = {
        stored_name(sound.path, training.captions.parent): list(sound.captions)
        for sound in read_captions(training.captions)
    }
    rows = [row for row, path in enumerate(store.paths()) if path in captions]
    if len(rows) < FEWEST_SOUNDS:
        raise UserError(
            f"{training.captions}: has captions of {len(rows)} of the {len(store)} sounds whose tokens are in "
            f"{training.tokens_folder}; a rhythm scorer needs at least {FEWEST_SOUNDS}"
        )
    rows = rows[:: -(-len(rows) // _MOST_SOUNDS)]
    scorer = fit(store, rows, captions, centroids, Clap.load(config, device), config)
    scorer.save(target)
    return target, len(rows), scorer


def fit(
    store: TokenStore,
    rows: Sequence[int],
    captions: Mapping[str, list[str]],
    centroids: Float[Tensor, "codebook features"],
    clap: Clap,
    config: ModelConfig,
) -> RhythmScorer:
    """The scorer fitted to these rows of a store and the captions of their sounds."""
    frame_hz = config.hubert_kmeans_cfg.output_hz
    longest = round(config.global_cfg.clap_audio_length_seconds * frame_hz)
    tokens = [store.tokens(row, "semantic", 0, longest).flatten() for row in rows]
    direction = principal_direction(centroids, torch.cat(tokens).bincount(minlength=len(centroids)))
    rhythms = torch.cat([describe_rhythm(centroids[ids][None], direction, frame_hz) for ids in tokens])
    paths = store.paths()
    texts = list(_embed([captions[paths[row]] for row in rows], clap))
    scorer = RhythmScorer(frame_hz, centroids.shape[1], clap.embedding_dim, COMPONENTS)
    scorer.direction.copy_(direction)
    scorer.rhythm_mean.copy_(rhythms.mean(dim=0))
    scorer.rhythm_spread.copy_(rhythms.std(dim=0) + _SMALLEST_SPREAD)
    scorer.text_mean.copy_(torch.stack([each.mean(dim=0) for each in texts]).mean(dim=0))
    deviations = (rhythms - scorer.rhythm_mean) / scorer.rhythm_spread
    centred = [each - scorer.text_mean for each in texts]
    of_sounds = torch.stack([each.mean(dim=0) for each in centred])
    covariance = torch.stack([each.t() @ each / len(each) for each in centred]).mean(dim=0)
    between = of_sounds.t() @ deviations / len(deviations)
    found = canonical(covariance, between, deviations.t() @ deviations / len(deviations))
    for buffer, value in zip(
        (scorer.text_directions, scorer.rhythm_directions, scorer.correlations), found, strict=True
    ):
        buffer.copy_(value)
    return scorer


def principal_direction(
    centroids: Float[Tensor, "codebook features"], counts: Int[Tensor, "codebook"]
) -> Float[Tensor, "features"]:
    """The direction in which features, each its token's centroid, vary most; its sign makes the skewness positive: it
    points to the rarer, stronger features."""
    weights = counts.double() / counts.sum()
    centred = centroids.double() - weights @ centroids.double()
    direction = torch.linalg.eigh(centred.t() @ (centred * weights[:, None])).eigenvectors[:, -1]
    skewness = weights @ (centred @ direction).pow(3)
    return (direction if skewness >= 0 else -direction).float()


def canonical(
    left: Float[Tensor, "dim dim"], between: Float[Tensor, "dim others"], right: Float[Tensor, "others others"]
) -> tuple[Float[Tensor, "dim components"], Float[Tensor, "others components"], Float[Tensor, "components"]]:
    """The first canonical directions of two centred variables with these covariances, each of variance 1, and their
    correlations."""
    whitening_left, whitening_right = _inverse_root(left), _inverse_root(right)
    u, correlations, v = torch.linalg.svd(whitening_left @ between.double() @ whitening_right, full_matrices=False)
    first = slice(0, COMPONENTS)
    return (
        (whitening_left @ u[:, first]).float(),
        (whitening_right @ v[first].t()).float(),
        correlations[first].clamp(max=_LARGEST_CORRELATION).float(),
    )


def _inverse_root(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    values, vectors = torch.linalg.eigh(covariance.double())
    return vectors @ torch.diag((values + _SHRINKAGE * values.mean()).rsqrt()) @ vectors.t()


def _embed(captions: Sequence[list[str]], clap: Clap) -> Iterator[Float[Tensor, "_ dim"]]:
    """The embeddings of each sound's captions."""
    flat = [caption for own in captions for caption in own]
    parts = [
        clap.embed_text(flat[first : first + _TEXTS_AT_ONCE]).cpu() for first in range(0, len(flat), _TEXTS_AT_ONCE)
    ]
    yield from torch.cat(parts).split([len(own) for own in captions])
