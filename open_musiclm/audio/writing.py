"""Writing sound files."""

from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write


def write_wave(path: Path, wave: Float[Tensor, "samples"], sample_hz: int) -> None:
    """Writes 16-bit sound atomically, as wav or flac by the suffix. Raises UserError."""
    samples = wave.detach().to("cpu", torch.float32).clamp(-1, 1).numpy()
    with atomic_write(path) as temporary:
        try:
            soundfile.write(temporary, samples, sample_hz, subtype="PCM_16", format=path.suffix[1:].upper())
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: cannot write: {error.error_string}") from error
