"""Small backbones with random weights, as directories in the layouts that the configs name.

They run the very code that the real ones run: MERT in the Hugging Face layout, EnCodec in ours.
"""

from pathlib import Path

import torch
from encodec import EncodecModel
from transformers import HubertConfig, HubertModel

from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, build_encodec, save_encodec

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
        config = HubertConfig.from_dict(small_mert_config(sample_hz))
        HubertModel(config).save_pretrained(folder)
    return folder


def build_codec(folder: Path, architecture: EncodecArchitecture = ENCODEC, seed: int = 0) -> Path:
    """Writes a small EnCodec with random codebooks, each finer than the one before; returns its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_encodec(architecture)
        fill_codebooks(model)
        save_encodec(model, architecture, folder)
    return folder


def fill_codebooks(model: EncodecModel) -> None:
    """Random codes where an untrained EnCodec has zeros."""
    for index, layer in enumerate(model.quantizer.vq.layers):
        codebook = layer._codebook
        codebook.embed.normal_(std=0.3 * 0.8**index)
        codebook.embed_avg.copy_(codebook.embed)
        codebook.cluster_size.fill_(1.0)
        codebook.inited.fill_(1.0)
