"""Checkpoints released by the earlier implementation, read without executing anything in them.

Stages (`*.transformer.N.pt`) and the residual VQ (`clap.rvq.N.pt`) are plain state dicts; k-means
(`kmeans*.joblib`) is a pickle of scikit-learn, see `open_musiclm.checkpoints.legacy.kmeans`.
"""

import re
from pathlib import Path

from torch import Tensor

from open_musiclm.checkpoints.legacy.kmeans import read_centroids
from open_musiclm.checkpoints.torch_files import read_state_dict
from open_musiclm.errors import UserError

_STAGE_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"absolute_position_embeddings\.", "position_embeddings."),
        (r"transformer\.rel_pos_bias\.net\.([012])\.0\.", r"transformer.position_bias.layers.\1."),
        (r"transformer\.rel_pos_bias\.net\.3\.", "transformer.position_bias.layers.3."),
        (r"transformer\.rel_pos_bias\.relative_attention_bias\.", "transformer.position_bias.buckets."),
        (r"transformer\.layers\.(\d+)\.0\.q_scale", r"transformer.blocks.\1.attention.query_scale"),
        (r"transformer\.layers\.(\d+)\.0\.k_scale", r"transformer.blocks.\1.attention.key_scale"),
        (r"transformer\.layers\.(\d+)\.0\.norm\.", r"transformer.blocks.\1.attention.norm."),
        (r"transformer\.layers\.(\d+)\.0\.to_q\.", r"transformer.blocks.\1.attention.to_query."),
        (r"transformer\.layers\.(\d+)\.0\.to_kv\.", r"transformer.blocks.\1.attention.to_key_value."),
        (r"transformer\.layers\.(\d+)\.0\.to_out\.0\.", r"transformer.blocks.\1.attention.to_output."),
        (r"transformer\.layers\.(\d+)\.2\.0\.", r"transformer.blocks.\1.feedforward.norm."),
        (r"transformer\.layers\.(\d+)\.2\.1\.", r"transformer.blocks.\1.feedforward.to_hidden."),
        (r"transformer\.layers\.(\d+)\.2\.2\.ds_conv\.", r"transformer.blocks.\1.feedforward.convolution."),
        # With a convolution the feed-forward has one more step before its inner norm than without.
        (r"transformer\.layers\.(\d+)\.2\.[34]\.(?=gamma|beta)", r"transformer.blocks.\1.feedforward.hidden_norm."),
        (r"transformer\.layers\.(\d+)\.2\.[56]\.", r"transformer.blocks.\1.feedforward.to_output."),
    )
)


def read(path: Path, kind: str) -> dict[str, Tensor]:
    """Tensors of a released file of this kind (`checkpoints.Kind`) under our parameter names.

    A tensor without a counterpart keeps its name. Raises UserError, also if the file is of another kind.
    """
    if kind == "hubert_kmeans":
        return {"centroids": read_centroids(path)}
    tensors = read_state_dict(path)
    found = _kind_of(tensors)
    if kind not in found:
        raise UserError(f"{path}: holds {' or '.join(found) or 'no released'} weights; {kind} weights are needed here")
    if kind == "clap_rvq":
        return {f"residual_vq.{name}": _flag(name, tensor) for name, tensor in tensors.items()}
    return _stage_tensors(path, tensors)


def _kind_of(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """The kinds that a state dict may be, by the names in it; none if it is no released file."""
    if "layers.0._codebook.embed" in tensors:
        return ("clap_rvq",)
    if "start_tokens.2" in tensors:
        # The second sequence of the fine stage is the coarse tokens, of the coarse stage the semantic ones.
        quantizers = tensors["logit_weights.1"].shape[0] if "logit_weights.1" in tensors else 1
        return ("fine",) if quantizers > 1 else ("coarse", "fine")
    return ("semantic",) if "start_tokens.1" in tensors else ()


def _flag(name: str, tensor: Tensor) -> Tensor:
    """`initted` became a boolean scalar; it was a float of one element in the releases' vector-quantize-pytorch."""
    return tensor.reshape(-1)[:1].bool().squeeze(0) if name.endswith(".initted") else tensor


def _stage_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        if not name.endswith(".beta"):
            renamed[_our_name(name)] = tensor
        elif tensor.any():
            raise UserError(f"{path}: {name} is not zero, and these layer norms have no shift; not a released file")
    return renamed


def _our_name(name: str) -> str:
    for pattern, replacement in _STAGE_NAMES:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name
