"""A small CLAP of random weights in transformers' layout, which `Clap.load` reads, and its tokenizer."""

import json
import math
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.normalizers import Lowercase
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.config.backbones import ClapArchitecture

_MELS = 64
_POSITIONS = 80
# RoBERTa's order: CLAP's padding id is 1.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LONGEST_PROMPT_TOKENS = 77


def build_feature_extractor() -> ClapFeatureExtractor:
    """CLAP's front end: 64 mels of 50 to 14,000 Hz, 100 frames a second of ten seconds at 48 kHz."""
    return ClapFeatureExtractor(
        feature_size=_MELS,
        sampling_rate=48000,
        max_length_s=10,
        frequency_min=50,
        frequency_max=14000,
        truncation="rand_trunc",
        padding="repeatpad",
    )


def build_clap(architecture: ClapArchitecture, vocabulary_size: int, initial_logit_scale: float) -> ClapModel:
    """An untrained CLAP; the audio tower's last width is `audio_dim` doubled at every stage but the first."""
    audio_dim = architecture.audio_dim * 2 ** (len(architecture.audio_depths) - 1)
    config = ClapConfig(
        text_config={
            "vocab_size": vocabulary_size,
            "hidden_size": architecture.text_dim,
            "num_hidden_layers": architecture.text_layers,
            "num_attention_heads": architecture.text_heads,
            "intermediate_size": 3 * architecture.text_dim,
            "max_position_embeddings": _POSITIONS,
            "layer_norm_eps": 1e-5,
            "attention_probs_dropout_prob": 0.0,
        },
        audio_config={
            "patch_size": architecture.patch_size,
            "patch_stride": [architecture.patch_size, architecture.patch_size],
            "hidden_size": audio_dim,
            "depths": list(architecture.audio_depths),
            "num_attention_heads": list(architecture.audio_heads),
            "patch_embeds_hidden_size": architecture.audio_dim,
            "num_hidden_layers": len(architecture.audio_depths),
        },
        projection_dim=architecture.embedding_dim,
    )
    model = ClapModel(config)
    with torch.no_grad():
        model.logit_scale_a.fill_(math.log(initial_logit_scale))
        model.logit_scale_t.fill_(math.log(initial_logit_scale))
    return model


def clap_widths(config: ClapConfig) -> dict[str, Any]:
    """The keys of `ClapArchitecture` that the config of a CLAP decides: all but the vocabulary's size."""
    text: Any = config.text_config
    audio: Any = config.audio_config
    return {
        "embedding_dim": config.projection_dim,
        "text_dim": text.hidden_size,
        "text_layers": text.num_hidden_layers,
        "text_heads": text.num_attention_heads,
        "patch_size": audio.patch_size,
        "audio_dim": audio.patch_embeds_hidden_size,
        "audio_depths": list(audio.depths),
        "audio_heads": list(audio.num_attention_heads),
    }


def train_text_tokenizer(texts: Iterable[str], vocabulary_size: int) -> RobertaTokenizer:
    """A byte-level BPE (any prompt in any script has tokens) fitted on `texts`, as RoBERTa's tokenizer.

    Unlike RoBERTa's it ignores case: captions are too few to learn each word twice.
    """
    trained = ByteLevelBPETokenizer(lowercase=True)
    trained.train_from_iterator(
        texts, vocab_size=vocabulary_size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    description = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in description["merges"]]
    tokenizer = RobertaTokenizer(vocab=description["vocab"], merges=merges, model_max_length=LONGEST_PROMPT_TOKENS)
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    return tokenizer
