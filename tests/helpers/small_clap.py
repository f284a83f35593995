"""A small CLAP with random weights and a tokenizer of its own, as a directory in the released layout.

It runs the very code that the real one runs: HTSAT over 10 s at 48 kHz, RoBERTa over byte-level BPE.
"""

import json
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

CLAP_DIM = 16
_SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# Not trained: parts of LAION's network that are computed from its shape, and the temperature of its loss.
_FIXED = ("logit_scale", "spectrogram_extractor", "logmel_extractor", "attn_mask")
_CAPTIONS = ["a slow piano piece in a minor key", "fast violin tune, bright and dense", "calm flute and strings"]


def build_tokenizer(folder: Path, size: int = 320) -> RobertaTokenizer:
    """Writes a byte-level BPE with RoBERTa's special tokens, trained on a few captions, filled up to `size` tokens."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        _CAPTIONS, vocab_size=320, min_frequency=1, special_tokens=_SPECIAL_TOKENS, show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    tokens = json.loads((folder / "vocab.json").read_text())
    tokens |= {f"unused{index}": index for index in range(len(tokens), size)}
    (folder / "vocab.json").write_text(json.dumps(tokens))
    return RobertaTokenizer.from_pretrained(str(folder))


def small_clap_config(vocab_size: int, enable_fusion: bool = False, dim: int = CLAP_DIM) -> ClapConfig:
    """Four layers of one block each, as many as HTSAT has."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 96,
    }
    audio = {
        "hidden_size": 64,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 4],
        "mlp_ratio": 2.0,
        "enable_fusion": enable_fusion,
    }
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=dim)


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights all over, also where transformers starts from zero, and batch norm as after training on dB."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not any(part in name for part in _FIXED):
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.1 if tensor.ndim < 2 else fan_in**-0.5))
            if tensor.ndim == 1 and name.endswith(".weight"):
                tensor.add_(1)
        if name.endswith("running_var"):
            tensor.abs_().add_(400.0 if "batch_norm" in name or "bn0" in name else 1.0)
        if name.endswith(("batch_norm.running_mean", "bn0.running_mean")):
            tensor.sub_(40)


def build_clap(folder: Path, enable_fusion: bool = False, dim: int = CLAP_DIM, seed: int = 0) -> Path:
    """Writes a small CLAP; returns its folder."""
    tokenizer = build_tokenizer(folder)
    model = ClapModel(small_clap_config(len(tokenizer), enable_fusion, dim))
    randomize(model, seed)
    model.save_pretrained(folder)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="fusion" if enable_fusion else "rand_trunc")
    extractor.save_pretrained(folder)
    return folder
