"""Embeddings of many sounds: computed block by block, kept in files, read again where nothing has changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from tqdm import tqdm

from open_musiclm.analysis.mert_layers import MertLayers
from open_musiclm.audio import SoundError, read_sound
from open_musiclm.data.failures import SoundFailure, named
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write
from open_musiclm.generation.clap_embedder import ClapEmbedder

_SOUNDS_OF_A_BLOCK = 64
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class SoundEmbeddings:
    """CLAP embeddings of the sounds that could be used, by their numbers in what was given, and the failures.

    MERT's layers stay in the files of the blocks; `num_layers` is 0 without MERT.
    """

    numbers: Int[np.ndarray, "sounds"]
    clap: Float[np.ndarray, "sounds dim"]
    failures: list[SoundFailure]
    num_layers: int
    blocks: list[Path]

    def layer(self, index: int) -> Float[np.ndarray, "sounds features"]:
        """The mean over time of a layer of MERT, of every sound; 0 is the input of the first transformer layer."""
        found = []
        for path in self.blocks:
            with np.load(path) as block:
                found.append(block["mert"][~_failed(block), index])
        return np.concatenate(found)


def embed_sounds(paths: Sequence[Path], clap: ClapEmbedder, mert: MertLayers | None, folder: Path) -> SoundEmbeddings:
    """Embeds sound files; blocks of 64 of them are files in `folder`, which the same sounds and models use again.

    A file that cannot be read, or whose embedding is not finite, is a failure. Raises UserError where all are.
    """
    models = _digest_of(clap.clap) + (_digest_of(mert.model) if mert else "")
    blocks, numbers, vectors, failures, layers = [], [], [], [], 0
    with tqdm(total=len(paths), desc="embedding", unit="file") as bar:
        for first in range(0, len(paths), _SOUNDS_OF_A_BLOCK):
            own = paths[first : first + _SOUNDS_OF_A_BLOCK]
            path = folder / f"{_digest(models, clap.window_seconds, *map(_state, own))}.npz"
            if not path.exists():
                _write_block(path, own, clap, mert)
            with np.load(path) as block:
                failed = _failed(block)
                failures += [SoundFailure(own[n], str(block["reasons"][n])) for n in np.flatnonzero(failed)]
                numbers.append(first + np.flatnonzero(~failed))
                vectors.append(block["clap"][~failed])
                if not failed.all():
                    blocks.append(path)
                    layers = block["mert"].shape[1]
            bar.update(len(own))
    if len(failures) == len(paths):
        raise UserError(f"none of the {len(paths)} sound files can be used; the first one is {failures[0].reason}")
    return SoundEmbeddings(np.concatenate(numbers), np.concatenate(vectors), failures, layers, blocks)


def embed_texts(texts: Sequence[str], clap: ClapEmbedder) -> Float[np.ndarray, "texts dim"]:
    """CLAP embeddings of texts, in order. Raises UserError where they are not finite."""
    parts = [
        clap.clap.embed_text(texts[first : first + _TEXTS_AT_ONCE]).cpu().numpy()
        for first in range(0, len(texts), _TEXTS_AT_ONCE)
    ]
    vectors = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise UserError(f"the CLAP embedding of {texts[bad[0]]!r} is not finite; CLAP's weights are not usable")
    return vectors


def _write_block(path: Path, sounds: Sequence[Path], clap: ClapEmbedder, mert: MertLayers | None) -> None:
    reasons, vectors, layers = [], [], []
    for sound in sounds:
        try:
            with named(sound):
                found = read_sound(sound)
                vector = clap.embed_sound(found).cpu()
                features = mert.embed(found).cpu() if mert else torch.zeros(0, 0)
                if not (vector.isfinite().all() and features.isfinite().all()):
                    raise SoundError(f"{sound}: its embedding is not finite")
            reasons.append("")
        except SoundError as error:
            reasons.append(str(error))
            vector, features = torch.full((clap.clap.embedding_dim,), torch.nan), None
        vectors.append(vector.numpy())
        layers.append(features)
    shape = next((features.shape for features in layers if features is not None), (0, 0))
    filled = [np.full(shape, np.nan, np.float32) if features is None else features.numpy() for features in layers]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, reasons=np.array(reasons), clap=np.stack(vectors), mert=np.stack(filled))


def _failed(block: np.lib.npyio.NpzFile) -> np.ndarray:
    return np.char.str_len(block["reasons"]) > 0


def _state(path: Path) -> tuple[str, int, int]:
    """What a file's block is kept by; a file that is not there has no size."""
    try:
        status = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path.resolve()), status.st_size, status.st_ctime_ns


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _digest_of(model: nn.Module) -> str:
    """A digest of all weights."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
