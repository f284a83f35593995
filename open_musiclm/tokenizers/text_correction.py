"""A correction of CLAP's text embeddings.

Sounds and texts are separated in CLAP's space (Liang et al. 2022), and stages are trained on the tokens of sounds.

The file has an affine map of text embeddings towards those of sounds, which generation applies before quantization, and
the embedding of a fixed text, which identifies the CLAP.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.checkpoints.weights import save_tensors
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write
from open_musiclm.tokenizers.clap import Clap

TEXT_CORRECTION_NAME = "text_correction.safetensors"
_FORMAT = "open_musiclm_text_correction"
_PROBE_TEXT = "music"
_SAME_CLAP = 0.99  # cosine: half precision changes less, other weights more


@dataclass(frozen=True)
class TextCorrection:
    """`matrix` times the embedding of a text, plus `shift`, normalised to length 1."""

    matrix: Float[Tensor, "dim dim"]
    shift: Float[Tensor, "dim"]

    def __call__(self, texts: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The corrected embeddings."""
        return torch.nn.functional.normalize(texts @ self.matrix.T + self.shift, dim=-1)

    @classmethod
    def load(cls, path: Path, clap: Clap) -> "TextCorrection":
        """The correction in a file that `save` wrote for this CLAP. Raises UserError."""
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != _FORMAT or not {"matrix", "shift", "probe"} <= tensors.keys():
            raise UserError(f"{path}: not a correction of text embeddings; scripts/analyze_clap.py writes one")
        own = clap.embed_text([_PROBE_TEXT])[0]
        matrix, shift, probe = (tensors[name].to(own) for name in ("matrix", "shift", "probe"))
        fits = matrix.shape == (*own.shape, *own.shape) and shift.shape == probe.shape == own.shape
        if not fits or float(own @ probe) < _SAME_CLAP:
            raise UserError(f"{path}: made for another CLAP than this model's; make one with scripts/analyze_clap.py")
        return cls(matrix, shift)

    def save(self, path: Path, clap: Clap) -> None:
        """Writes the correction for a CLAP. Raises UserError."""
        tensors = {"matrix": self.matrix, "shift": self.shift, "probe": clap.embed_text([_PROBE_TEXT])[0]}
        contiguous = {name: tensor.detach().cpu().float().contiguous() for name, tensor in tensors.items()}
        with atomic_write(path) as temporary:
            save_tensors(contiguous, temporary, {"format": _FORMAT})
