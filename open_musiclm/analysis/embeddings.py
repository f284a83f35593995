"""Embeddings of many sounds, cached on disk by content; computed again only if the sound or a model changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.analysis.mert_layers import MertLayers
from open_musiclm.audio import Sound, SoundError, read_sound
from open_musiclm.data.failures import SoundFailure, as_sound_error
from open_musiclm.errors import UserError
from open_musiclm.evaluation.cache import MeasureCache, all_finite, content_key
from open_musiclm.evaluation.measure import identity_of
from open_musiclm.evaluation.vectors import VectorFile
from open_musiclm.progress_bar import progress_bar
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder

_TEXTS_AT_ONCE = 256
_VECTORS = "vectors"


@dataclass(frozen=True)
class SoundEmbeddings:
    """CLAP embeddings of the sounds that could be used, by their numbers in what was given, and the failures.

    `layers` are the means over time of MERT's layers, in a temporary file; 0 is the input of the first transformer
    layer. Without MERT there are none.
    """

    numbers: Int[np.ndarray, "sounds"]
    clap: Float[np.ndarray, "sounds dim"]
    layers: Float[Tensor, "sounds layers features"]
    failures: list[SoundFailure]

    @property
    def num_layers(self) -> int:
        """The number of MERT's layers, 0 without MERT."""
        return self.layers.shape[1]

    def layer(self, index: int) -> Float[np.ndarray, "sounds features"]:
        """One layer of MERT, of every sound."""
        return self.layers[:, index].numpy().copy()


@dataclass(frozen=True)
class _Embedder:
    """An embedder of sounds, with one vector or one per layer, and the identity of its cache."""

    identity: str
    embed: Callable[[Sound], Tensor]


def embed_sounds(paths: Sequence[Path], clap: ClapEmbedder, mert: MertLayers | None, folder: Path) -> SoundEmbeddings:
    """Embeds sound files; the results are cached in `folder`.

    A file that cannot be read, or whose embedding is not finite, is a failure, and is tried again the next time. Raises
    UserError if all are.
    """
    cache = MeasureCache(folder)
    what = f"atlas 1, {clap.window_seconds} s, {clap.clap.sample_hz} Hz"
    embedders = [_Embedder(identity_of(what, clap.clap), clap.embed_sound)]
    if mert is not None:
        what = f"atlas 1, {mert.window} samples, {mert.sample_hz} Hz"
        embedders.append(_Embedder(identity_of(what, mert.model), mert.embed))
    numbers, vectors, failures = [], [], []
    features, layers = VectorFile(), 0
    with progress_bar(len(paths), "embedding", "files") as bar:
        for number, path in enumerate(paths):
            try:
                embedded = _embedded(path, embedders, cache)
            except SoundError as error:
                failures.append(SoundFailure(path, str(error)))
            else:
                numbers.append(number)
                vectors.append(embedded[0].numpy()[0])
                if mert is not None:
                    layers = len(embedded[1])
                    features.append(embedded[1])
            bar.update()
    if not numbers:
        raise UserError(f"none of the {len(paths)} sound files can be used; the first one is {failures[0].reason}")
    read = features.read().vectors if mert is not None else torch.zeros(0, 0)
    of_layers = read.view(len(numbers), layers, read.shape[1])
    return SoundEmbeddings(np.array(numbers), np.stack(vectors), of_layers, failures)


def embed_texts(texts: Sequence[str], clap: ClapEmbedder) -> Float[np.ndarray, "texts dim"]:
    """CLAP embeddings of texts, in order. Raises UserError if they are not finite."""
    parts = [
        clap.clap.embed_text(texts[first : first + _TEXTS_AT_ONCE]).cpu().numpy()
        for first in range(0, len(texts), _TEXTS_AT_ONCE)
    ]
    vectors = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise UserError(f"the CLAP embedding of {texts[bad[0]]!r} is not finite; CLAP's weights are not usable")
    return vectors


def _embedded(
    path: Path, embedders: Sequence[_Embedder], cache: MeasureCache
) -> list[Float[Tensor, "vectors features"]]:
    """What each embedder makes of a sound. Raises SoundError, or UserError if it cannot be kept."""
    try:
        key = content_key(path, None)
    except UserError as error:
        raise SoundError(str(error)) from error
    kept = {own.identity: cache.find(own.identity, key) for own in embedders}
    found = {identity: measured[_VECTORS] for identity, measured in kept.items() if measured is not None}
    missing = [own for own in embedders if own.identity not in found]
    if missing:
        with as_sound_error(path):
            sound = read_sound(path)
            made = {own.identity: own.embed(sound).cpu() for own in missing}
        if not all_finite(made.values()):
            raise SoundError(f"{path}: its embedding is not finite")
        for identity, vectors in made.items():
            found[identity] = vectors.reshape(-1, vectors.shape[-1])
            cache.keep(identity, key, {_VECTORS: found[identity]})
    return [found[own.identity] for own in embedders]
