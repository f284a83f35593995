"""What a token store records of the weights that its tokens come from."""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from open_musiclm.checkpoints.fingerprints import fingerprint_of
from open_musiclm.config import ModelConfig
from open_musiclm.tokenizers.mert import load_centroids
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer


def tokenizer_fingerprints(tokenizer: MusicTokenizer) -> dict[str, str]:
    """Fingerprints of all weights that tokens depend on. Older stores have the first two only."""
    return {
        "clap_rvq": _codebook_fingerprint(tokenizer.quantizer.residual_vq.codebooks),
        "hubert_kmeans": _codebook_fingerprint(tokenizer.semantic.centroids),
        "clap": fingerprint_of(tokenizer.clap.model.state_dict()),
        "mert": fingerprint_of(tokenizer.semantic.mert.model.state_dict()),
        "encodec": fingerprint_of(tokenizer.codec.model.state_dict()),
    }


def fingerprints_at(rvq_path: Path | None, kmeans_path: Path | None, config: ModelConfig) -> dict[str, str]:
    """Fingerprints of the quantizer and the k-means at these paths, where there is one. Raises UserError."""
    found = {}
    if rvq_path is not None:
        quantizer = ClapQuantizer.load(rvq_path, config, torch.device("cpu"))
        found["clap_rvq"] = _codebook_fingerprint(quantizer.residual_vq.codebooks)
    if kmeans_path is not None:
        found["hubert_kmeans"] = _codebook_fingerprint(load_centroids(kmeans_path, config))
    return found


def _codebook_fingerprint(weights: Shaped[Tensor, "..."]) -> str:
    content = weights.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()[:16]
