"""Wave to acoustic tokens and back, by the codec and the decoder that `encodec_cfg` names."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from open_musiclm.checkpoints.foreign import ForeignDirectory, is_local
from open_musiclm.config import EncodecConfig, ModelConfig
from open_musiclm.config.json_files import read_json_object
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec_model import CodecModel
from open_musiclm.tokenizers.decoder import Decoder, decoder_paths, load_decoder
from open_musiclm.tokenizers.encodec_package import RELEASED_FILE, EncodecPackage, downloaded_encodec, released_file_in
from open_musiclm.tokenizers.encodec_transformers import EncodecTransformers, encodec_paths
from open_musiclm.tokenizers.own_directory import CONFIG_NAME, WEIGHTS_NAME
from open_musiclm.tokenizers.spectral_codec import SpectralCodec

_SECTION = "encodec_cfg"
_KEY = f"{_SECTION}: model_name"
RELEASED = "encodec_24khz"


class Codec(nn.Module):
    """A frozen codec with the first `quantizers` of its codebooks: `sample_hz`, and `hop` samples per frame.

    `decoder` None means the codec's own. `lookahead_frames` is how many later frames the sound of a frame depends on,
    `context_frames` how many earlier ones a decoder without memory needs. On mps it works on the CPU (convolutions are
    wrong there); tokens and waves come back on the device they were given on.
    """

    def __init__(self, model: CodecModel, quantizers: int, decoder: Decoder | None = None) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.decoder = decoder.requires_grad_(False) if decoder is not None else None
        self.sample_hz, self.hop = model.sample_hz, model.hop
        self.codebook_size, self.quantizers = model.codebook_size, quantizers
        self.lookahead_frames = decoder.context_frames if decoder is not None else model.lookahead_frames
        self.context_frames = decoder.context_frames if decoder is not None else 0
        self.eval()

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device) -> "Codec":
        """The codec and the decoder that `encodec_cfg` names. Raises UserError, also if they do not fit the
        config."""
        codec, name = cls.load_without_decoder(config, device), config.encodec_cfg.decoder
        if name is None:
            return codec
        decoder = load_decoder(config.backbone(name), codec.model, codec.quantizers)
        return cls(codec.model, codec.quantizers, decoder).to(codec._device)

    @classmethod
    def load_without_decoder(cls, config: ModelConfig, device: torch.device) -> "Codec":
        """The codec that `encodec_cfg` names with its own decoder, whatever decoder it names. Raises UserError."""
        quantizers = config.num_acoustic_quantizers
        model = _load_model(config)
        _check(config.encodec_cfg, model, quantizers)
        return cls(model, quantizers).to("cpu" if device.type == "mps" else device)

    def train(self, mode: bool = True) -> "Codec":
        """Stays in evaluation mode: codebooks must not move."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]:
        """Acoustic tokens of mono waves at `sample_hz`, coarsest codebook first."""
        return self.model.encode(waves.to(self._device, torch.float32), self.quantizers).to(waves.device)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch samples"]:
        """time * hop samples at `sample_hz`; the first codebooks alone give a coarser wave. Raises UserError as
        `check_decodes`."""
        own = codes.to(self._device)
        if self.decoder is not None:
            return self.decoder(self.model, own).to(codes.device)
        return self.model.decode(self.model.latents(own)).to(codes.device)

    def check_decodes(self, quantizers: int, key: str) -> None:
        """Raises UserError if there is no decoder for so few codebooks; `key` is what wants them decoded."""
        if self.decoder is not None:
            self.decoder.check(quantizers, key)
        else:
            self.model.check_decoder()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def is_local_codec(config: ModelConfig) -> bool:
    """Whether `encodec_cfg.model_name` is a directory, and not the name of a codec to download.

    Raises UserError for a path of no directory.
    """
    name = config.backbone(config.encodec_cfg.model_name)
    return name != RELEASED and ("/" not in name or is_local(name, _KEY))


def codec_paths(config: ModelConfig) -> list[Path]:
    """The files that are read of the local directory that `encodec_cfg.model_name` names.

    Raises UserError if it holds no codec.
    """
    folder = Path(config.backbone(config.encodec_cfg.model_name))
    released = released_file_in(folder)
    if released is not None:
        return [released]
    if not (folder / CONFIG_NAME).exists():
        raise UserError(
            f"{_KEY}: expected {RELEASED}, a hub id, or a directory that holds {RELEASED_FILE} or {CONFIG_NAME} and "
            f"{WEIGHTS_NAME}, found {folder}"
        )
    if "model_type" in read_json_object(folder / CONFIG_NAME):
        return encodec_paths(ForeignDirectory(folder, _KEY))
    return [folder / CONFIG_NAME, folder / WEIGHTS_NAME]


def codec_decoder_paths(config: ModelConfig) -> list[Path]:
    """The files that are read of the directory that `encodec_cfg.decoder` names. Raises UserError."""
    assert config.encodec_cfg.decoder is not None
    return decoder_paths(config.backbone(config.encodec_cfg.decoder))


def _load_model(config: ModelConfig) -> CodecModel:
    name = config.encodec_cfg.model_name
    if name.endswith("encodec_48khz"):
        raise UserError(f"{_KEY}: {name} is stereo and not supported; use {RELEASED}")
    if name == RELEASED:
        return EncodecPackage.released(downloaded_encodec(_KEY))
    if not is_local_codec(config):
        return EncodecTransformers.load(ForeignDirectory(name, _KEY))
    folder = Path(config.backbone(name))
    first, *others = codec_paths(config)
    if not others:
        return EncodecPackage.released(first)
    content = read_json_object(first)
    if "model_type" in content:
        return EncodecTransformers.load(ForeignDirectory(folder, _KEY))
    return SpectralCodec.load(folder) if "codec" in content else EncodecPackage.own(folder)


def _check(section: EncodecConfig, model: CodecModel, quantizers: int) -> None:
    """The config against what the model is. Raises UserError."""
    for key, found, expected in (
        ("sample_hz", section.sample_hz, model.sample_hz),
        ("output_hz", section.output_hz, model.sample_hz // model.hop),
        ("codebook_size", section.codebook_size, model.codebook_size),
    ):
        if found != expected:
            raise UserError(f"{_SECTION}: {key}: {found}, but {section.model_name} has {expected}")
    if not any(abs(section.bandwidth - offered) < 1e-6 for offered in model.bandwidths):
        offered = ", ".join(f"{bandwidth:g}" for bandwidth in model.bandwidths)
        raise UserError(f"{_SECTION}: bandwidth: {section.bandwidth:g}, but {section.model_name} has {offered} kbps")
    if model.quantizers_at(section.bandwidth) != quantizers:
        raise UserError(
            f"{_SECTION}: bandwidth: {section.bandwidth:g} kbps is {model.quantizers_at(section.bandwidth)} "
            f"codebooks, but global_cfg has num_coarse_quantizers + num_fine_quantizers = {quantizers}"
        )
