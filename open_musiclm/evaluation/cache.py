"""What was measured of sound files, kept on disk by their content."""

import hashlib
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from open_musiclm.evaluation.measure import Measured
from open_musiclm.files import atomic_write, prepare_folder
from open_musiclm.text_files import open_regular

_BLOCK_BYTES = 1 << 20


class MeasureCache:
    """One file for each sound and measure: `identity/ab/abcdef....safetensors`.

    Runs and processes share the folder. A damaged file is as if it were not there. Raises UserError where the folder
    cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prepare_folder(folder)

    def find(self, identity: str, key: str) -> Measured | None:
        """What is kept, if anything."""
        path = self._path(identity, key)
        with suppress(OSError, SafetensorError, ValueError):
            return load_file(path)
        return None

    def keep(self, identity: str, key: str, measured: Measured) -> None:
        """Keeps what was measured. Raises UserError."""
        with atomic_write(self._path(identity, key)) as temporary:
            save_file({name: vectors.contiguous() for name, vectors in measured.items()}, temporary)

    def _path(self, identity: str, key: str) -> Path:
        return self.folder / identity / key[:2] / f"{key}.safetensors"


def content_key(path: Path, seconds: float | None) -> str:
    """What a sound is kept by: its bytes, and how much of it counts. Raises UserError."""
    digest = hashlib.sha256(f"{seconds}\n".encode())
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
