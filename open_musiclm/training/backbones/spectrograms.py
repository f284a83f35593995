"""CLAP's spectrograms of whole sound files, stored on disk for later epochs."""

import hashlib
import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import ClapFeatureExtractor

from open_musiclm.audio import read_sound, resampled, to_int16_and_back
from open_musiclm.files import atomic_write
from open_musiclm.tokenizers.clap_mel import ClapMel


class Spectrograms:
    """Reads sound files as log-mel spectrograms; `frames` is the length of CLAP's window.

    With a `folder` each file is computed once and kept there in half precision (13 kB a second): decoding, resampling
    and the transform take several times as long as a step of a small CLAP. A file that changes, or whose
    stored spectrogram is damaged, is computed again.
    """

    def __init__(self, extractor: ClapFeatureExtractor, folder: Path | None) -> None:
        self.mel = ClapMel(extractor)
        self.frames = self.mel.frames
        self.mels: int = extractor.feature_size
        self.sample_hz: int = extractor.sampling_rate
        self.folder = folder
        self._front_end = json.dumps(extractor.to_dict(), sort_keys=True, default=str)

    def of(self, path: Path) -> Float[Tensor, "time mels"]:
        """Decibels of at least `frames` frames. Raises SoundError."""
        if self.folder is None:
            return self._computed(path)
        kept = self.folder / f"{self._identity(path)}.npy"
        found = self._kept(kept)
        if found is not None:
            return found
        spectrogram = self._computed(path).half()
        with atomic_write(kept) as temporary, temporary.open("wb") as file:
            np.save(file, spectrogram.numpy(), allow_pickle=False)
        return spectrogram

    def _kept(self, file: Path) -> Float[Tensor, "time mels"] | None:
        """The spectrogram in a file; None if there is none, or none that this class wrote: it is made again."""
        if not file.is_file():
            return None
        try:
            found = np.load(
                file, allow_pickle=False, mmap_mode="r"
            )  # mapped: a header cannot claim more than the file has
        except (OSError, ValueError, EOFError, BadZipFile):
            return None
        if not isinstance(found, np.ndarray) or found.dtype != np.float16 or found.shape[1:] != (self.mels,):
            return None
        spectrogram = torch.from_numpy(np.array(found))
        return spectrogram if len(found) >= self.frames and bool(spectrogram.isfinite().all()) else None

    @torch.no_grad()
    def _computed(self, path: Path) -> Float[Tensor, "time mels"]:
        wave = to_int16_and_back(resampled(read_sound(path), self.sample_hz))
        return self.mel.whole(wave[None])[0]

    def _identity(self, path: Path) -> str:
        """A key for the content of a file, by its path, size and time of change, and for the extractor's settings."""
        try:
            status = path.stat()
        except OSError:
            return "absent"  # never kept: reading it will say what is wrong
        identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {self._front_end}"
        return hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:24]
