"""Small backbones with random weights, as directories in the layouts that the configs name.

They run the very code that the real ones run: MERT in the Hugging Face layout, EnCodec in ours.
"""

import json
from pathlib import Path

import torch
from encodec import EncodecModel
from transformers import HubertConfig, HubertModel

from open_musiclm.config import (
    ClapRvqConfig,
    CoarseConfig,
    EncodecConfig,
    FineConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    SemanticConfig,
)
from open_musiclm.config.json_files import Section
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, build_encodec
from open_musiclm.tokenizers.own_directory import save_model

MERT_FEATURES = 16
MERT_LAYERS = 3
ENCODEC = EncodecArchitecture(
    dimension=8,
    n_filters=2,
    lstm=1,
    n_q=8,
    bins=16,
    target_bandwidths=(0.9, 1.5, 2.4),  # 3, 5 and 8 codebooks
)


def model_config(*sections: Section) -> ModelConfig:
    """A model config of these sections, and defaults in place of the others."""
    given = {type(section): section for section in sections}
    kinds = {
        "global_cfg": GlobalConfig,
        "clap_rvq_cfg": ClapRvqConfig,
        "hubert_kmeans_cfg": HubertKmeansConfig,
        "encodec_cfg": EncodecConfig,
        "semantic_cfg": SemanticConfig,
        "coarse_cfg": CoarseConfig,
        "fine_cfg": FineConfig,
    }
    return ModelConfig(**{name: given.get(kind) or kind() for name, kind in kinds.items()})


def small_mert_config(sample_hz: int = 16000) -> dict:
    """config.json of a MERT of three layers with the real front end's kernels and strides (320 samples a frame)."""
    config = HubertConfig(
        hidden_size=MERT_FEATURES,
        num_hidden_layers=MERT_LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    ).to_dict()
    return config | {"model_type": "mert_model", "sample_rate": sample_hz}


def build_mert(folder: Path, sample_hz: int = 16000, seed: int = 0) -> Path:
    """Writes a small MERT; returns its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = small_mert_config(sample_hz)
        HubertModel(HubertConfig.from_dict(config)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def build_codec(folder: Path, architecture: EncodecArchitecture = ENCODEC, seed: int = 0) -> Path:
    """Writes a small EnCodec with random codebooks, each finer than the one before; returns its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_encodec(architecture)
        fill_codebooks(model)
        save_model(model, architecture, folder)
    return folder


@torch.no_grad()
def fill_codebooks(model: EncodecModel) -> None:
    """Random codes around what the encoder makes of noise, where an untrained EnCodec has zeros."""
    embeddings = model.encoder(torch.randn(4, 1, 12000) * torch.tensor([1.0, 0.3, 0.1, 0.03]).view(4, 1, 1))
    deviation, mean = torch.std_mean(embeddings, dim=(0, 2))
    for index, layer in enumerate(model.quantizer.vq.layers):
        codebook = layer._codebook
        codes = deviation * 0.8**index * torch.randn(codebook.embed.shape)
        codebook.embed.copy_(codes + mean if index == 0 else codes)
        codebook.embed_avg.copy_(codebook.embed)
        codebook.cluster_size.fill_(1.0)
        codebook.inited.fill_(1.0)
