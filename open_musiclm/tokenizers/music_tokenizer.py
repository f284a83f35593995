"""The tokenizers of a model: a wave becomes CLAP, semantic and acoustic tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.mert import SemanticTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.tokenizers.text_correction import TextCorrection


@dataclass(frozen=True)
class MusicTokenizer:
    """The three kinds of tokens, each from waves at its own tokenizer's sample rate.

    `text_correction` is what a bundle says changes the embeddings of prompts before they are quantized.
    """

    clap: Clap
    quantizer: ClapQuantizer
    semantic: SemanticTokenizer
    codec: Codec
    text_correction: TextCorrection | None = None

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        rvq_path: Path,
        kmeans_path: Path,
        device: torch.device,
        trust_remote_code: bool = False,
    ) -> "MusicTokenizer":
        """All four parts; small files first, so that a wrong path is found before the backbones load.

        `trust_remote_code` lets Python code run that comes with MERT. Raises UserError.
        """
        quantizer = ClapQuantizer.load(rvq_path, config, device)
        semantic = SemanticTokenizer.load(kmeans_path, config, device, trust_remote_code)
        codec = Codec.load(config, device)
        clap = Clap.load(config, device)
        quantizer.check_fits(clap.embedding_dim, rvq_path)
        return cls(clap, quantizer, semantic, codec)

    @property
    def device(self) -> torch.device:
        """Where its tokens are made."""
        return self.semantic.centroids.device

    def clap_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch 1 quantizers"]:
        """CLAP tokens of waves at `clap.sample_hz`."""
        return self.quantizer.encode(self.clap.embed_audio(waves)).unsqueeze(1)

    def prompt_ids(self, prompts: Sequence[str]) -> Int[Tensor, "batch 1 quantizers"]:
        """CLAP tokens of texts."""
        return self.quantizer.encode(self.clap.embed_text(prompts)).unsqueeze(1)

    def clap_window_ids(
        self, waves: Sequence[Float[Tensor, "_"]], window: int, step: int
    ) -> Int[Tensor, "windows quantizers"]:
        """CLAP tokens of every window of `window` samples, one every `step`, of all waves in turn, as one batch."""
        return self.quantizer.encode(self.clap.embed_windows(waves, window, step))

    def semantic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time 1"]:
        """Semantic tokens of normalised waves at `semantic.mert.sample_hz`."""
        return self.semantic.encode(waves).unsqueeze(-1)

    def acoustic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]:
        """Acoustic tokens of waves at `codec.sample_hz`, coarse and fine."""
        return self.codec.encode(waves)
