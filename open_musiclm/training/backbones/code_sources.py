"""Codes of a frozen codec: stored in files of their own, or in a token store."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from open_musiclm.audio import SoundError, read_window, sound_info
from open_musiclm.checkpoints.fingerprints import fingerprint_of
from open_musiclm.data.crops import Crop, cut
from open_musiclm.data.failures import SoundFailure, as_sound_error
from open_musiclm.data.token_store import TokenStore
from open_musiclm.files import atomic_write
from open_musiclm.tokenizers.codec import Codec

_BLOCK_SECONDS = 30  # encoded at once, so that hours fit into memory
_CODE_TYPE = np.int32


class CachedCodes:
    """Codes of whole sound files in a folder of .npy files, named by the file's path, size and time and by the codec.

    `paths` are the files with codes, in order, `failures` those that cannot be encoded.
    """

    def __init__(self, folder: Path, codec: Codec) -> None:
        self.folder, self.codec = folder, codec
        self.paths: list[Path] = []
        self.failures: list[SoundFailure] = []
        self._files: list[Path] = []
        self._frames: list[int] = []
        self._fingerprint = f"{codec.quantizers} {fingerprint_of(codec.model.state_dict())}"

    def add(self, paths: Sequence[Path], accelerator: Accelerator) -> None:
        """Encodes those of `paths` that are missing, each process its share, and lists all."""
        share = paths[accelerator.process_index :: accelerator.num_processes]
        missing = [path for path in share if self._kept(path) is None]
        hidden = not accelerator.is_main_process or not missing
        for path in tqdm(missing, desc="encoding", unit="file", disable=hidden or not sys.stderr.isatty()):
            self._encode(path)
        accelerator.wait_for_everyone()
        for path in paths:
            codes = self._kept(path)
            if codes is None:
                self.failures.append(SoundFailure(path, f"{path}: cannot be encoded"))
            else:
                self.paths.append(path)
                self._files.append(self._place(path))
                self._frames.append(len(codes))

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> Path:
        """See `CodeSource.path`."""
        return self.paths[index]

    def start_seconds(self, index: int) -> float:
        """See `CodeSource.start_seconds`: a whole file starts at 0."""
        return 0.0

    def frames(self, index: int) -> int:
        """See `CodeSource.frames`."""
        return self._frames[index]

    def codes(self, index: int, first: int, count: int) -> Int[Tensor, "count quantizers"]:
        """See `CodeSource.codes`. The file is open only meanwhile: a process may have some thousand open at a time."""
        try:
            codes = np.load(self._files[index], allow_pickle=False, mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError) as error:
            message = (
                f"{self.paths[index]}: its codes, {self._files[index]}, are gone or damaged; start the training again"
            )
            raise SoundError(message) from error
        return torch.from_numpy(np.array(codes[first : first + count]))

    def _encode(self, path: Path) -> None:
        """Writes the codes of a file; one that fails has none."""
        try:
            with as_sound_error(path):
                codes = self._codes(path)
        except SoundError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            return
        with atomic_write(self._place(path)) as temporary, temporary.open("wb") as file:
            np.save(file, codes, allow_pickle=False)

    def _codes(self, path: Path) -> Int[np.ndarray, "time quantizers"]:
        info, blocks = sound_info(path), []
        crop = Crop("block", _BLOCK_SECONDS, self.codec.sample_hz, normalized=False)
        block = _BLOCK_SECONDS * info.sample_hz
        for first in range(0, info.frames, block):
            length = min(block, info.frames - first)
            samples = round(length * self.codec.sample_hz / info.sample_hz)
            wave = cut(read_window(path, first, length, info), info.sample_hz, crop, None)[: max(samples, 1)]
            blocks.append(self.codec.encode(wave[None])[0].cpu().numpy().astype(_CODE_TYPE))
        return np.concatenate(blocks)

    def _kept(self, path: Path) -> np.ndarray | None:
        """The codes of a file, mapped; None if there are none, or none that this class wrote."""
        place = self._place(path)
        try:
            found = np.load(place, allow_pickle=False, mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError):
            return None
        fits = found.dtype == _CODE_TYPE and found.ndim == 2 and found.shape[1] == self.codec.quantizers
        return found if fits and len(found) and found.min() >= 0 and found.max() < self.codec.codebook_size else None

    def _place(self, path: Path) -> Path:
        try:
            status = path.stat()
        except OSError:
            return self.folder / "absent"
        identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {self._fingerprint}"
        return self.folder / f"{hashlib.sha256(identity.encode(errors='surrogateescape')).hexdigest()[:24]}.npy"


class TokenStoreCodes:
    """The acoustic tokens of a token store, with its sound files."""

    def __init__(self, store: TokenStore, sounds: Path, output_hz: int) -> None:
        self.store, self.sounds, self.output_hz = store, sounds, output_hz

    def __len__(self) -> int:
        return len(self.store)

    def path(self, index: int) -> Path:
        """See `CodeSource.path`."""
        return self.sounds / self.store.path(index)

    def start_seconds(self, index: int) -> float:
        """See `CodeSource.start_seconds`."""
        return self.store.start_seconds(index)

    def frames(self, index: int) -> int:
        """See `CodeSource.frames`."""
        return round(self.store.seconds(index) * self.output_hz)

    def codes(self, index: int, first: int, count: int) -> Int[Tensor, "count quantizers"]:
        """See `CodeSource.codes`. Raises UserError if a shard is damaged."""
        streams = [self.store.tokens(index, name, first, count) for name in ("coarse", "fine")]
        return torch.cat(streams, dim=1)
