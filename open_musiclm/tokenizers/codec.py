"""Wave to acoustic tokens and back: EnCodec (Défossez et al. 2022), the released 24 kHz model or one of our own."""

import hashlib
import zipfile
from pathlib import Path
from urllib.error import URLError

import encodec
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.legacy.state_dict import read_state_dict
from open_musiclm.config import EncodecConfig, ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.encodec_directory import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    EncodecArchitecture,
    filled_encodec,
    load_encodec,
)

_SECTION = "encodec_cfg"
RELEASED = "encodec_24khz"
RELEASED_FILE = "encodec_24khz-d7cc33bc.th"
_LARGEST_RELEASED = 1 << 28  # bytes; it has 93 million
_RELEASED_URL = f"https://dl.fbaipublicfiles.com/encodec/v0/{RELEASED_FILE}"


class Codec(nn.Module):
    """A frozen EnCodec with the first `quantizers` of its codebooks: `sample_hz`, and `hop` samples per frame.

    On mps it works on the CPU (its convolutions are wrong there); tokens and waves come back on the device they
    were given on.
    """

    def __init__(self, model: encodec.EncodecModel, architecture: EncodecArchitecture, quantizers: int) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.sample_hz = architecture.sample_hz
        self.hop = architecture.hop
        self.quantizers = quantizers
        self.eval()

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device) -> "Codec":
        """The model that `encodec_cfg` names: `encodec_24khz`, a directory with its released file, or a directory
        of `save_encodec`. Raises UserError, also where it does not fit the config."""
        section = config.encodec_cfg
        if section.model_name == "encodec_48khz":
            raise UserError(f"{_SECTION}: model_name: encodec_48khz is stereo and not supported; use {RELEASED}")
        first, *others = [_downloaded()] if section.model_name == RELEASED else codec_paths(config)
        model, architecture = load_encodec(first.parent) if others else _released(first)
        _check(section, architecture, config.num_acoustic_quantizers)
        codec = cls(model, architecture, config.num_acoustic_quantizers)
        return codec.to("cpu" if device.type == "mps" else device)

    def train(self, mode: bool = True) -> "Codec":
        """Stays in evaluation mode: codebooks must not move."""
        return super().train(False)

    def frames(self, samples: int) -> int:
        """How many frames a wave of `samples` has; the last may be begun only."""
        return -(-samples // self.hop)

    @torch.no_grad()
    def encode(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]:
        """Acoustic tokens of mono waves at `sample_hz`, coarsest codebook first."""
        embeddings = self.model.encoder(waves.to(self._device, torch.float32).unsqueeze(1))
        codes = self.model.quantizer.vq.encode(embeddings, n_q=self.quantizers)
        return codes.permute(1, 2, 0).to(waves.device)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch samples"]:
        """time * hop samples at `sample_hz`; the first codebooks alone give a coarser wave."""
        embeddings = self.model.quantizer.decode(codes.to(self._device).permute(2, 0, 1))
        return self.model.decoder(embeddings).squeeze(1).to(codes.device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def codec_paths(config: ModelConfig) -> list[Path]:
    """The files that are read of the directory that `encodec_cfg` names: config and weights, or the released file.

    Raises UserError where it holds neither.
    """
    folder = Path(config.backbone(config.encodec_cfg.model_name))
    for names in ((RELEASED_FILE,), (CONFIG_NAME, WEIGHTS_NAME)):
        if (folder / names[0]).exists():
            return [folder / name for name in names]
    raise UserError(
        f"{_SECTION}: model_name: expected {RELEASED} or a directory that holds {RELEASED_FILE} or {CONFIG_NAME} and "
        f"{WEIGHTS_NAME}, found {folder}"
    )


def _check(section: EncodecConfig, architecture: EncodecArchitecture, quantizers: int) -> None:
    """The config against what the model is. Raises UserError."""
    for key, found, expected in (
        ("sample_hz", section.sample_hz, architecture.sample_hz),
        ("output_hz", section.output_hz, architecture.sample_hz // architecture.hop),
        ("codebook_size", section.codebook_size, architecture.bins),
    ):
        if found != expected:
            raise UserError(f"{_SECTION}: {key}: {found}, but {section.model_name} has {expected}")
    if section.bandwidth not in architecture.target_bandwidths:
        offered = ", ".join(f"{bandwidth:g}" for bandwidth in architecture.target_bandwidths)
        raise UserError(f"{_SECTION}: bandwidth: {section.bandwidth:g}, but {section.model_name} has {offered} kbps")
    if architecture.quantizers_at(section.bandwidth) != quantizers:
        raise UserError(
            f"{_SECTION}: bandwidth: {section.bandwidth:g} kbps is {architecture.quantizers_at(section.bandwidth)} "
            f"codebooks, but global_cfg has num_coarse_quantizers + num_fine_quantizers = {quantizers}"
        )


def _downloaded() -> Path:
    """The released file in torch's cache, downloaded where it is not there yet."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / RELEASED_FILE
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_RELEASED_URL, str(path), hash_prefix=_hash_in_name())
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"{_SECTION}: model_name: cannot download {_RELEASED_URL} ({error}); put that file at {path}, or in a "
                "directory and give the directory as model_name"
            ) from error
    return path


def _released(path: Path) -> tuple[encodec.EncodecModel, EncodecArchitecture]:
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
    return filled_encodec(architecture, tensors, path), architecture


def _older_state_dict(path: Path) -> dict[str, Tensor]:
    """A file of torch.save before version 1.6, which is no zip."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch may raise anything for a file that somebody made
        raise UserError(f"{path}: damaged: {' '.join(str(error).split())[:200]}") from error


def _hash_in_name() -> str:
    return Path(RELEASED_FILE).stem.split("-")[1]
