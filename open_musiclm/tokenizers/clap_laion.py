"""LAION's own CLAP files (`630k-audioset-best.pt` and its like) as transformers' ClapModel.

Both are the same network (Wu et al. 2023) under other parameter names; every parameter must find its place.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import ClapConfig, ClapModel

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.state_comparison import state_differences
from open_musiclm.checkpoints.torch_files import read_torch_file
from open_musiclm.config import ClapRvqConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap_directory import CONSTANT
from open_musiclm.tokenizers.pretrained import model_of_state

_SECTION = "clap_rvq_cfg"
_RENAMED = (
    ("text_branch", "text_model"),
    ("audio_branch", "audio_model.audio_encoder"),
    (".attn.relative_position", ".attention.self.relative_position"),
    (".attn.qkv", ".attention.self.qkv"),
    (".attn.proj", ".attention.output.dense"),
    (".mlp.fc1", ".intermediate.dense"),
    (".mlp.fc2", ".output.dense"),
    (".norm1", ".layernorm_before"),
    (".norm2", ".layernorm_after"),
    (".bn0.", ".batch_norm."),
    ("_projection.0.", "_projection.linear1."),
    ("_projection.2.", "_projection.linear2."),
)
# The front end, which is computed elsewhere, classes of AudioSet, heads of the loss, and masks that the shapes imply.
_UNUSED = re.compile(
    r"audio_model\.audio_encoder\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..*"
    r"|audio_model\.audio_encoder\.layers\.\d+\.blocks\.\d+\.attn_mask"
    r"|(text|audio)_transform\.sequential\.[03]\.(weight|bias)"
    r"|text_model\.embeddings\.position_ids"
)
_PATCHES = "audio_model.audio_encoder.patch_embed.proj.weight"
_FUSION = "audio_model.audio_encoder.patch_embed.mel_conv2d.weight"


@dataclass(frozen=True)
class _Shape:
    """What differs between LAION's audio towers: channels of a patch, and blocks of each of the four layers."""

    channels: int
    depths: tuple[int, int, int, int]


_SHAPES = {
    "HTSAT-tiny": _Shape(96, (2, 2, 6, 2)),
    "HTSAT-base": _Shape(128, (2, 2, 12, 2)),
    "HTSAT-large": _Shape(256, (2, 2, 12, 2)),
}


def laion_architecture(amodel_type: str, enable_fusion: bool) -> ClapConfig:
    """The ClapConfig of LAION's network of this shape; RoBERTa keeps its own layer norm, unlike ClapConfig's."""
    shape = _SHAPES[amodel_type]
    audio = {
        "patch_embeds_hidden_size": shape.channels,
        "hidden_size": shape.channels * 8,
        "depths": list(shape.depths),
        "enable_fusion": enable_fusion,
    }
    return ClapConfig(text_config={"layer_norm_eps": 1e-5}, audio_config=audio)


def load_laion(path: Path, section: ClapRvqConfig) -> ClapModel:
    """The model in a LAION file, of the shape that the config names. Raises UserError."""
    renamed = read_laion(path, section)
    return model_of(path, renamed, laion_architecture(section.amodel_type, section.enable_fusion))


def read_laion(path: Path, section: ClapRvqConfig) -> dict[str, Tensor]:
    """The tensors of a LAION file of that shape, under the names of ClapModel. Raises UserError."""
    content = read_torch_file(path)
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise UserError(f"{path}: holds no weights of LAION's CLAP (a state_dict of tensors)")
    renamed = rename_laion(tensors)
    _check_shape(path, renamed, section)
    return renamed


def rename_laion(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAION's tensors under the names of ClapModel; what that has no place for keeps a name of its own."""
    renamed = {}
    for laions, tensor in tensors.items():
        name = laions.removeprefix("module.")
        for old, new in _RENAMED:
            name = name.replace(old, new)
        if ".qkv." in name and tensor.ndim and len(tensor) % 3 == 0:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[name.replace("qkv", part)] = third
        else:
            renamed[name] = tensor
    return renamed


def model_of(path: Path, tensors: Mapping[str, Tensor], architecture: ClapConfig) -> ClapModel:
    """A model of this architecture with these weights: all there, none too many, each of its shape.

    Raises UserError, which names the file.
    """
    with torch.device("meta"):
        expected = ClapModel(architecture).state_dict()
    state = {name: own for name, own in tensors.items() if name in expected or not _UNUSED.fullmatch(name)}
    differences = state_differences(expected, state, CONSTANT)
    if differences:
        raise UserError(f"{path}: not the weights of LAION's CLAP: {differences}")
    check_finite(state, path)
    return model_of_state(ClapModel, architecture, state)


def _check_shape(path: Path, tensors: Mapping[str, Tensor], section: ClapRvqConfig) -> None:
    """The two keys of the config that describe the file. Raises UserError."""
    if _PATCHES not in tensors or not tensors[_PATCHES].ndim:
        raise UserError(f"{path}: not the weights of LAION's CLAP (no audio_branch.patch_embed.proj.weight)")
    channels = len(tensors[_PATCHES])
    found = next((name for name, shape in _SHAPES.items() if shape.channels == channels), "another HTSAT")
    if found != section.amodel_type:
        raise UserError(f"{_SECTION}: amodel_type: {section.amodel_type}, but {path} holds {found}")
    fusion = _FUSION in tensors
    if fusion != section.enable_fusion:
        raise UserError(
            f"{_SECTION}: enable_fusion: {str(section.enable_fusion).lower()}, but {path} was trained "
            f"{'with' if fusion else 'without'} fusion"
        )
