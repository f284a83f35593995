"""Writes toy checkpoints in the layout of the released ones, to drive what reads those."""

from collections import OrderedDict
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from open_musiclm.tokenizers.rvq import ClapQuantizer

_TOP = {
    "position_embeddings": "absolute_position_embeddings",
    "start_tokens": "start_tokens",
    "logit_weights": "logit_weights",
    "embeddings": "embeddings",
}
_ATTENTION = {
    "query_scale": "0.q_scale",
    "key_scale": "0.k_scale",
    "norm.gamma": "0.norm.gamma",
    "to_query.weight": "0.to_q.weight",
    "to_key_value.weight": "0.to_kv.weight",
    "to_output.weight": "0.to_out.0.weight",
}
_FEEDFORWARD = {"norm.gamma": "2.0.gamma", "to_hidden.weight": "2.1.weight"}
_CONVOLUTIONAL = {
    "convolution.weight": "2.2.ds_conv.weight",
    "hidden_norm.gamma": "2.4.gamma",
    "to_output.weight": "2.6.weight",
}
_PLAIN = {"hidden_norm.gamma": "2.3.gamma", "to_output.weight": "2.5.weight"}


def released_stage(stage: nn.Module) -> dict[str, Tensor]:
    """The state dict that the earlier implementation would have saved for this stage."""
    ours = stage.state_dict()
    convolutional = any(".convolution." in name for name in ours)
    result: dict[str, Tensor] = OrderedDict()
    for name, tensor in ours.items():
        theirs = _released_name(name.removeprefix("layout."), convolutional)
        result[theirs] = tensor
        if theirs.endswith(".gamma"):
            result[theirs.removesuffix("gamma") + "beta"] = torch.zeros_like(tensor)
    return result


def _released_name(name: str, convolutional: bool) -> str:
    top, _, rest = name.partition(".")
    if top != "transformer":
        return f"{_TOP[top]}.{rest}"
    if rest == "norm.gamma":
        return name
    if rest == "position_bias.buckets.weight":
        return "transformer.rel_pos_bias.relative_attention_bias.weight"
    if rest.startswith("position_bias.layers."):
        index, leaf = rest.split(".")[2:]
        return f"transformer.rel_pos_bias.net.{index}.{'' if index == '3' else '0.'}{leaf}"
    _, layer, part, leaf = rest.split(".", 3)
    names = _ATTENTION if part == "attention" else _FEEDFORWARD | (_CONVOLUTIONAL if convolutional else _PLAIN)
    return f"transformer.layers.{layer}.{names[leaf]}"


def released_rvq(quantizer: ClapQuantizer) -> dict[str, Tensor]:
    """The state dict of vector-quantize-pytorch 0.10 to 1.2: `initted` is a float of one element."""
    state = quantizer.residual_vq.state_dict()
    return {name: tensor.float().reshape(1) if "initted" in name else tensor for name, tensor in state.items()}


def released_kmeans(centroids: Tensor) -> MiniBatchKMeans:
    """A fitted k-means with these centroids, as it was pickled."""
    kmeans = MiniBatchKMeans(n_clusters=len(centroids), n_init=1, batch_size=256, random_state=0)
    kmeans.fit(np.tile(centroids.numpy(), (2, 1)))
    kmeans.cluster_centers_ = centroids.numpy()
    return kmeans


def write_released_kmeans(centroids: Tensor, path: Path, compress: int = 0) -> Path:
    """Writes the joblib file; returns its path."""
    joblib.dump(released_kmeans(centroids), path, compress=compress)
    return path
