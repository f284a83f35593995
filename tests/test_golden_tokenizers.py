"""The recorded tokenizers: MERT with k-means, and the residual VQ, token for token."""

import shutil
from pathlib import Path

import torch
from helpers.golden_cases import CPU, closest, golden_file, golden_settings, golden_tensors
from helpers.small_backbones import model_config

from open_musiclm.config import ClapRvqConfig, HubertKmeansConfig
from open_musiclm.tokenizers.mert import SemanticTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer


def _semantic() -> SemanticTokenizer:
    folder = golden_file("mert/config.json").parent
    section = HubertKmeansConfig(model_name=str(folder), **golden_settings("mert_kmeans"))
    return SemanticTokenizer.load(golden_file("kmeans.joblib"), model_config(section), CPU)


def _quantizer(path: Path) -> ClapQuantizer:
    section = ClapRvqConfig(rq_num_quantizers=4, codebook_size=16)
    return ClapQuantizer.load(path, model_config(section), CPU)


def test_semantic_tokens_are_the_recorded_ones() -> None:
    expected = golden_tensors("mert_kmeans")
    semantic = _semantic()
    assert torch.equal(semantic.centroids, expected["cluster_centers"])
    assert torch.equal(semantic.encode(expected["waves"]), expected["token_ids"].long())


def test_semantic_tokens_do_not_depend_on_the_batch() -> None:
    expected = golden_tensors("mert_kmeans")
    semantic = _semantic()
    alone = torch.cat([semantic.encode(wave.unsqueeze(0)) for wave in expected["waves"]])
    assert torch.equal(alone, expected["token_ids"].long())


def test_rvq_tokens_are_the_recorded_ones() -> None:
    expected = golden_tensors("clap.rvq")
    quantizer = _quantizer(golden_file("clap.rvq.pt"))
    tokens = quantizer.encode(expected["embeddings"])
    assert torch.equal(tokens, expected["indices"].long())
    quantized = sum(codebook[tokens[:, index]] for index, codebook in enumerate(quantizer.residual_vq.codebooks))
    assert closest(quantized, expected["quantized"]) < 1e-5


def test_a_copy_elsewhere_gives_the_same_tokens(tmp_path: Path) -> None:
    copy = tmp_path / "clap.rvq.950_no_fusion.pt"
    shutil.copy(golden_file("clap.rvq.pt"), copy)
    expected = golden_tensors("clap.rvq")
    assert torch.equal(_quantizer(copy).encode(expected["embeddings"]), expected["indices"].long())
