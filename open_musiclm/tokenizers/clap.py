"""CLAP's two towers (Wu et al. 2023): sound or text to one embedding of length 1 in a space that both share."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.audio import to_int16_and_back
from open_musiclm.config import ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap_directory import LONGEST_PROMPT_TOKENS, ClapDirectory, ClapParts
from open_musiclm.tokenizers.clap_laion import load_laion
from open_musiclm.tokenizers.clap_mel import ClapFeatures, ClapMel

_SECTION = "clap_rvq_cfg"
_UNFUSED = "laion/clap-htsat-unfused"
_FUSED = "laion/clap-htsat-fused"
_LAION_TOKENIZER = "roberta-base"
_LAION_LOWEST_HZ = 50
_LAION_SAMPLE_HZ = 48000
# What the tower makes of a few clips stays in a CPU's cache; other devices take all at once.
_CLIPS_AT_ONCE = {"cpu": 4}


class Clap(nn.Module):
    """A frozen CLAP in float32.

    `sample_hz` is the rate of its waves, `embedding_dim` the size of its embeddings, `scale` the factor of similarities
    in training. Training took random crops of sound longer than ten seconds; here the middle is taken (see `ClapMel`),
    so that embeddings are repeatable.
    """

    def __init__(self, model: ClapModel, tokenizer: RobertaTokenizer, extractor: ClapFeatureExtractor) -> None:
        super().__init__()
        self.model = model.float().requires_grad_(False)
        self.mel = ClapMel(extractor)
        self.sample_hz: int = extractor.sampling_rate
        self.embedding_dim: int = model.config.projection_dim
        self.scale = float(model.logit_scale_t.exp())
        self._tokenizer = tokenizer
        self.eval()

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device) -> "Clap":
        """The CLAP that `clap_rvq_cfg` names.

        That is a LAION file, `checkpoint_path`, whose tokenizer is `model_name`'s or else roberta-base; or a hub id
        or local directory, `model_name`; or else the released CLAP that fits `enable_fusion`. Raises UserError.
        """
        section = config.clap_rvq_cfg
        directory = clap_directory(config)
        if section.checkpoint_path is not None:
            model = load_laion(Path(config.backbone(section.checkpoint_path)), section)
            extractor = ClapFeatureExtractor(
                sampling_rate=_LAION_SAMPLE_HZ,
                frequency_min=_LAION_LOWEST_HZ,
                truncation="fusion" if section.enable_fusion else "rand_trunc",
            )
            parts = ClapParts(model, directory.tokenizer(model.config), extractor)
        else:
            _check_fusion(directory.config(), section.enable_fusion, directory.files.name)
            parts = directory.load()
        if parts.extractor.sampling_rate != section.sample_hz:
            raise UserError(
                f"{_SECTION}: sample_hz: {section.sample_hz}, but CLAP takes {parts.extractor.sampling_rate} Hz"
            )
        with directory.files.reading():
            return cls(parts.model, parts.tokenizer, parts.extractor).to(device)

    def train(self, mode: bool = True) -> "Clap":
        """Stays in evaluation mode: no dropout, batch norm as trained."""
        return super().train(False)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Embeddings of length 1; only the first 77 tokens of a prompt are read."""
        tokens = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=LONGEST_PROMPT_TOKENS, return_tensors="pt"
        ).to(self.model.device)
        return self.model.get_text_features(tokens.input_ids, tokens.attention_mask).pooler_output

    def dropped_tokens(self, prompts: Sequence[str]) -> list[int]:
        """The number of tokens of each prompt that CLAP ignores."""
        tokens = self._tokenizer(list(prompts), verbose=False).input_ids
        return [max(len(ids) - LONGEST_PROMPT_TOKENS, 0) for ids in tokens]

    @torch.no_grad()
    def embed_audio(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """Embeddings of length 1 of waves at `sample_hz`, of any length, not normalised."""
        return self._embed([self.mel(to_int16_and_back(waves.float()))])

    @torch.no_grad()
    def embed_windows(
        self, waves: Sequence[Float[Tensor, "_"]], window: int, step: int
    ) -> Float[Tensor, "windows dim"]:
        """Embeddings of every window of `window` samples, one every `step`, of all waves in turn, as one batch.

        They are those of `embed_audio`; frames that windows share are computed once.
        """
        return self._embed([self.mel.windows(to_int16_and_back(wave.float()), window, step) for wave in waves])

    def _embed(self, features: Sequence[ClapFeatures]) -> Float[Tensor, "batch dim"]:
        spectrograms = torch.cat([some.spectrograms for some in features])
        is_longer = torch.cat([some.is_longer for some in features])
        at_once = _CLIPS_AT_ONCE.get(spectrograms.device.type, len(spectrograms))
        parts = zip(spectrograms.split(at_once), is_longer.split(at_once), strict=True)
        return torch.cat([self.model.get_audio_features(*part).pooler_output for part in parts])


def clap_directory(config: ModelConfig) -> ClapDirectory:
    """The directory that `clap_rvq_cfg` names; of a LAION file the one of its tokenizer."""
    section = config.clap_rvq_cfg
    released = _FUSED if section.enable_fusion else _UNFUSED
    default = released if section.checkpoint_path is None else _LAION_TOKENIZER
    name = default if section.model_name is None else section.model_name
    return ClapDirectory(config.backbone(name), f"{_SECTION}: model_name")


def _check_fusion(found: ClapConfig, enable_fusion: bool, name: str) -> None:
    """Checks the model's own config against this one. Raises UserError."""
    fusion: bool = found.audio_config.enable_fusion  # type: ignore[union-attr]
    if fusion != enable_fusion:
        raise UserError(
            f"{_SECTION}: enable_fusion: {str(enable_fusion).lower()}, but {name} was trained "
            f"{'with' if fusion else 'without'} fusion"
        )
