"""How an ear for rhythm is learned: in closed form, from stored semantic tokens and the captions of their sounds."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.rhythm.scorer import RhythmEar, describe_rhythm
from open_musiclm import cli
from open_musiclm.checkpoints import save_weights, weights_name
from open_musiclm.config import ModelConfig, load_model_config
from open_musiclm.data.token_store import TokenStore
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.mert import load_centroids
from open_musiclm.training.backbones.clap_text import read_captions

COMPONENTS = 4
FEWEST_SOUNDS = 50
_MOST_SOUNDS = 20000  # more would hardly move a covariance
_SHRINKAGE = 0.02  # towards equal variances, in shares of the mean variance
_MOST_CORRELATED = 0.99
_TEXTS_AT_ONCE = 256


def train_rhythm_ear(arguments: argparse.Namespace) -> None:
    """Learns an ear as the script's arguments say, and writes it. Raises UserError."""
    config = load_model_config(arguments.model_config)
    folder = arguments.results_folder or Path("results") / "rhythm_ear"
    target = folder / weights_name("rhythm_ear")
    if target.exists() and not arguments.overwrite:
        raise UserError(f"{target}: there already; give --overwrite or another --results_folder")
    centroids = load_centroids(arguments.kmeans_path, config)
    store = TokenStore(arguments.tokens_folder, config)
    captions = {
        str(sound.path.relative_to(arguments.captions.parent)): list(sound.captions)
        for sound in read_captions(arguments.captions)
    }
    rows = [row for row, path in enumerate(store.paths()) if path in captions]
    if len(rows) < FEWEST_SOUNDS:
        raise UserError(
            f"{arguments.captions}: has captions of {len(rows)} of the {len(store)} sounds whose tokens are in "
            f"{arguments.tokens_folder}; an ear for rhythm takes at least {FEWEST_SOUNDS}"
        )
    rows = rows[:: -(-len(rows) // _MOST_SOUNDS)]
    clap = Clap.load(config, choose_device(arguments.device))
    ear = learned_ear(store, rows, captions, centroids, clap, config)
    save_weights(target, "rhythm_ear", ear.state_dict(), config)
    found = ", ".join(f"{value:.2f}" for value in ear.correlations.tolist())
    cli.say(f"{len(rows)} sounds; correlations of texts and rhythms: {found}")
    cli.say(f"wrote {target}; give it as --ear_path to scripts/bundle.py or to an inference script")


def learned_ear(
    store: TokenStore,
    rows: list[int],
    captions: Mapping[str, list[str]],
    centroids: Float[Tensor, "codebook features"],
    clap: Clap,
    config: ModelConfig,
) -> RhythmEar:
    """The ear that these rows of a store and the captions of their sounds make."""
    frame_hz = config.hubert_kmeans_cfg.output_hz
    longest = round(config.global_cfg.clap_audio_length_seconds * frame_hz)
    tokens = [store.tokens(row, "semantic", 0, longest).flatten() for row in rows]
    direction = principal_direction(centroids, torch.cat(tokens).bincount(minlength=len(centroids)))
    rhythms = torch.cat([describe_rhythm(centroids[ids][None], direction, frame_hz) for ids in tokens])
    paths = store.paths()
    texts = list(_embedded([captions[paths[row]] for row in rows], clap))
    ear = RhythmEar(frame_hz, centroids.shape[1], clap.embedding_dim, COMPONENTS)
    ear.direction.copy_(direction)
    ear.rhythm_mean.copy_(rhythms.mean(dim=0))
    ear.rhythm_spread.copy_(rhythms.std(dim=0) + 1e-6)
    ear.text_mean.copy_(torch.stack([each.mean(dim=0) for each in texts]).mean(dim=0))
    scaled = (rhythms - ear.rhythm_mean) / ear.rhythm_spread
    centred = [each - ear.text_mean for each in texts]
    said = torch.stack([each.mean(dim=0) for each in centred])
    covariance = torch.stack([each.t() @ each / len(each) for each in centred]).mean(dim=0)
    found = canonical(covariance, said.t() @ scaled / len(scaled), scaled.t() @ scaled / len(scaled))
    for buffer, value in zip((ear.text_directions, ear.rhythm_directions, ear.correlations), found, strict=True):
        buffer.copy_(value)
    return ear


def principal_direction(
    centroids: Float[Tensor, "codebook features"], counts: Int[Tensor, "codebook"]
) -> Float[Tensor, "features"]:
    """Where features, each its token's centroid, differ most; it points to where the rarer, stronger ones are."""
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
        correlations[first].clamp(max=_MOST_CORRELATED).float(),
    )


def _inverse_root(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    values, vectors = torch.linalg.eigh(covariance.double())
    return vectors @ torch.diag((values + _SHRINKAGE * values.mean()).rsqrt()) @ vectors.t()


def _embedded(captions: list[list[str]], clap: Clap) -> Iterator[Float[Tensor, "_ dim"]]:
    """The embeddings of each sound's captions."""
    flat = [caption for own in captions for caption in own]
    parts = [
        clap.embed_text(flat[first : first + _TEXTS_AT_ONCE]).cpu() for first in range(0, len(flat), _TEXTS_AT_ONCE)
    ]
    yield from torch.cat(parts).split([len(own) for own in captions])
