"""The decoder that `encodec_cfg.decoder` names: a Vocos of this project, or one in the vocos package's layout."""

from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.foreign import Description, ForeignDirectory
from open_musiclm.checkpoints.torch_files import read_state_dict
from open_musiclm.errors import UserError
from open_musiclm.text_files import read_text
from open_musiclm.tokenizers.codec_model import CodecModel
from open_musiclm.tokenizers.own_directory import CONFIG_NAME, WEIGHTS_NAME, load_model, model_with_weights
from open_musiclm.tokenizers.vocos_decoder import VocosArchitecture, VocosDecoder

_KEY = "encodec_cfg: decoder"
_RELEASED_CONFIG, _RELEASED_WEIGHTS = "config.yaml", "pytorch_model.bin"
_MOST_YAML = 1 << 16  # bytes
_FEATURES = "feature_extractor."


class Decoder(nn.Module):
    """A Vocos for the codes of a codec."""

    def __init__(self, model: VocosDecoder, architecture: VocosArchitecture) -> None:
        super().__init__()
        self.model, self.quantizers = model, architecture.quantizers
        self.context_frames = architecture.context_frames

    def forward(self, codec: CodecModel, codes: Int[Tensor, "batch time quantizers"]) -> Float[Tensor, "batch samples"]:
        """The sound of codes, from the largest number of codebooks that is available and that it was trained for.

        Raises UserError if it was trained for more codebooks only.
        """
        self.check(codes.shape[2])
        level = sum(count <= codes.shape[2] for count in self.quantizers) - 1
        return self.model(codec.latents(codes[..., : self.quantizers[level]]), level)

    def check(self, quantizers: int, key: str = _KEY) -> None:
        """Raises UserError if it was trained for more codebooks only; `key` is what wants so few decoded."""
        if quantizers < self.quantizers[0]:
            raise UserError(
                f"{key}: {quantizers} codebooks are to be decoded, but the decoder takes {self.quantizers[0]} or more; "
                f"train one for {quantizers} with scripts/train_vocos.py"
            )


def load_decoder(name: str, codec: CodecModel, quantizers: int) -> Decoder:
    """The decoder of a directory or hub id, for `codec` with its first `quantizers` codebooks. Raises UserError."""
    files = ForeignDirectory(name, _KEY)
    if _is_own(files):
        model, architecture = load_model(Path(name), VocosArchitecture, VocosDecoder)
    else:
        model, architecture = _read_released(files, codec)
    for key, found, expected in (
        ("sample_hz", architecture.sample_hz, codec.sample_hz),
        ("hop", architecture.hop, codec.hop),
        ("latent_dim", architecture.latent_dim, codec.latent_dim),
    ):
        if found != expected:
            raise UserError(f"{_KEY}: {name}: it decodes {key} {found}, but the codec has {expected}")
    if architecture.quantizers[0] > quantizers:
        raise UserError(
            f"{_KEY}: {name}: it decodes {architecture.quantizers[0]} codebooks or more, but this config has "
            f"{quantizers}"
        )
    return Decoder(model, architecture)


def decoder_paths(name: str) -> list[Path]:
    """The files that `load_decoder` reads. Raises UserError."""
    files = ForeignDirectory(name, _KEY)
    names = (CONFIG_NAME, WEIGHTS_NAME) if _is_own(files) else (_RELEASED_CONFIG, _RELEASED_WEIGHTS)
    return [files.need(file) for file in names]


def _is_own(files: ForeignDirectory) -> bool:
    return files.local and files.find(_RELEASED_CONFIG) is None


class _Loader(yaml.SafeLoader):
    """Reads no aliases: a few hundred bytes of them can stand for any amount of content."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError(f"an alias, *{self.peek_event().anchor}; write out what it stands for")
        return super().compose_node(parent, index)


class _Part(Description):
    class_path: str
    init_args: dict[str, Any]


class _Released(Description):
    feature_extractor: _Part
    backbone: _Part
    head: _Part


class _Sizes(Description):
    input_channels: Annotated[int, Field(ge=1, le=1 << 14)]
    dim: Annotated[int, Field(ge=1, le=1 << 14)]
    intermediate_dim: Annotated[int, Field(ge=1, le=1 << 14)]
    num_layers: Annotated[int, Field(ge=1, le=64)]
    adanorm_num_embeddings: Annotated[int, Field(ge=1, le=64)]


def _read_released(files: ForeignDirectory, codec: CodecModel) -> tuple[VocosDecoder, VocosArchitecture]:
    """A Vocos of EnCodec's tokens by its authors' files, whose codebooks must be those of the codec."""
    config = files.need(_RELEASED_CONFIG)
    with files.reading(_RELEASED_CONFIG):
        content = yaml.load(read_text(config, _MOST_YAML), _Loader)
        released = _Released.model_validate(content)
        sizes = _Sizes.model_validate(released.backbone.init_args)
        head, features = released.head.init_args, released.feature_extractor.init_args
        architecture = VocosArchitecture(
            sample_hz=codec.sample_hz,
            hop=head["hop_length"],
            latent_dim=sizes.input_channels,
            quantizers=tuple(codec.quantizers_at(float(kbps)) for kbps in features["bandwidths"]),
            dim=sizes.dim,
            intermediate_dim=sizes.intermediate_dim,
            layers=sizes.num_layers,
            n_fft=head["n_fft"],
            head_hop=head["hop_length"],
        )
        if head.get("padding", "same") != "same" or len(architecture.quantizers) != sizes.adanorm_num_embeddings:
            raise UserError("not a Vocos of EnCodec's tokens: padding same, and a norm for each bandwidth, are needed")
    weights = files.need(_RELEASED_WEIGHTS)
    with files.reading():
        tensors = read_state_dict(weights)
        check_finite(tensors, weights)
    codebooks = tensors.get(f"{_FEATURES}codebook_weights")
    if codebooks is None or not _same_codebooks(codebooks, codec):
        raise files.refusal("its codebooks are not those of the codec: it was made for another")
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_FEATURES)}
    return model_with_weights(lambda: VocosDecoder(architecture), own, weights), architecture


@torch.no_grad()
def _same_codebooks(found: Tensor, codec: CodecModel) -> bool:
    """Whether a file's tensor is the [codes, dim] vectors of every code of the codec's first codebooks."""
    if found.ndim != 2 or found.shape[1] != codec.latent_dim or not found.is_floating_point():
        return False
    count, rest = divmod(len(found), codec.codebook_size)
    if rest or not 1 <= count <= codec.codebooks:
        return False
    ids = torch.arange(codec.codebook_size)
    zeros = torch.zeros_like(ids)
    for number in range(count):  # of a sum of code vectors, what changes with one code
        codes = torch.stack([ids if place == number else zeros for place in range(number + 1)], dim=-1)[None]
        vectors = codec.latents(codes)[0].T
        own = found[number * codec.codebook_size : (number + 1) * codec.codebook_size].float()
        rounding = torch.finfo(found.dtype).eps * float(own.abs().max())
        if not torch.allclose(vectors - vectors[:1], own - own[:1], atol=max(1e-4, rounding)):
            return False
    return True
