"""EnCodec of the encodec package (Défossez et al. 2022): the released 24 kHz model, or one of this project."""

import hashlib
import zipfile
from pathlib import Path
from urllib.error import URLError

import encodec
import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.torch_files import read_state_dict
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec_model import CodecModel
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, encodec_with_weights, load_encodec

RELEASED_FILE = "encodec_24khz-d7cc33bc.th"
_RELEASED_URL = f"https://dl.fbaipublicfiles.com/encodec/v0/{RELEASED_FILE}"
_LARGEST_RELEASED = 1 << 28  # bytes; it has 93 million


class EncodecPackage(CodecModel):
    """A causal mono EnCodec."""

    def __init__(self, model: encodec.EncodecModel, architecture: EncodecArchitecture) -> None:
        super().__init__()
        self.model = model
        self.sample_hz, self.hop = architecture.sample_hz, architecture.hop
        self.codebooks, self.codebook_size = architecture.n_q, architecture.bins
        self.latent_dim, self.bandwidths = architecture.dimension, architecture.target_bandwidths

    @classmethod
    def released(cls, path: Path) -> "EncodecPackage":
        """The released model from its file. Raises UserError."""
        return cls(*_read_released(path))

    @classmethod
    def own(cls, folder: Path) -> "EncodecPackage":
        """An own model from its directory. Raises UserError."""
        return cls(*load_encodec(folder))

    def encode(self, waves: Float[Tensor, "batch samples"], quantizers: int) -> Int[Tensor, "batch time quantizers"]:
        """See `CodecModel.encode`."""
        embeddings = self.model.encoder(waves.unsqueeze(1))
        return self.model.quantizer.vq.encode(embeddings, n_q=quantizers).permute(1, 2, 0)

    def latents(self, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch latent_dim time"]:
        """See `CodecModel.latents`."""
        return self.model.quantizer.decode(codes.permute(2, 0, 1))

    def decode(self, latents: Float[Tensor, "batch latent_dim time"]) -> Float[Tensor, "batch samples"]:
        """See `CodecModel.decode`."""
        return self.model.decoder(latents).squeeze(1)


def released_file_in(folder: Path) -> Path | None:
    """The released model's file, where a folder has it."""
    path = folder / RELEASED_FILE
    return path if path.exists() else None


def downloaded_encodec(key: str) -> Path:
    """The released file in torch's cache, downloaded where it is not there yet. Raises UserError, which names `key`."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / RELEASED_FILE
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_RELEASED_URL, str(path), hash_prefix=_hash_in_name())
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"{key}: cannot download {_RELEASED_URL} ({error}); put that file at {path}, or in a directory and "
                "give the directory as model_name"
            ) from error
    return path


def _read_released(path: Path) -> tuple[encodec.EncodecModel, EncodecArchitecture]:
    """The released model from its file, whose name holds the beginning of its SHA-256."""
    if path.stat().st_size > _LARGEST_RELEASED or not path.is_file():
        raise UserError(f"{path}: not EnCodec's released file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(_hash_in_name()):
        raise UserError(
            f"{path}: damaged or another file (its SHA-256 begins with {digest[:8]}, not {_hash_in_name()}); "
            f"delete it and fetch {_RELEASED_URL} again"
        )
    architecture = EncodecArchitecture()
    tensors = read_state_dict(path) if zipfile.is_zipfile(path) else _older_state_dict(path)
    check_finite(tensors, path)
    return encodec_with_weights(architecture, tensors, path), architecture


def _older_state_dict(path: Path) -> dict[str, Tensor]:
    """A file of torch.save before version 1.6, which is no zip."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch may raise anything for a file that somebody made
        raise UserError(f"{path}: damaged: {' '.join(str(error).split())[:200]}") from error


def _hash_in_name() -> str:
    return Path(RELEASED_FILE).stem.split("-")[1]
