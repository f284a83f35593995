"""CLAP's two towers (Wu et al. 2023): sound or text to one embedding of length 1 in a space that both share."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PretrainedConfig, RobertaTokenizer
from transformers.utils.logging import disable_progress_bar

from open_musiclm.audio import to_int16_and_back
from open_musiclm.config import ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap_laion import load_laion
from open_musiclm.tokenizers.clap_mel import ClapFeatures, ClapMel

_SECTION = "clap_rvq_cfg"
_UNFUSED = "laion/clap-htsat-unfused"
_FUSED = "laion/clap-htsat-fused"
_LAION_TOKENIZER = "roberta-base"
_LAION_LOWEST_HZ = 50
_LAION_SAMPLE_HZ = 48000
_MOST_TEXT_TOKENS = 77
# What the tower makes of a few clips stays in a CPU's cache; other devices take all at once.
_CLIPS_AT_ONCE = {"cpu": 4}
# Weights may lack these buffers, which only count.
_CONSTANT = frozenset(("text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids"))


class Clap(nn.Module):
    """A frozen CLAP in float32.

    `sample_hz` is the rate of its waves, `embedding_dim` the size of its embeddings, `scale` what training multiplied
    the similarities of a text to sounds by. Training cut random crops out of sound longer than ten seconds; here the
    middle is taken, see `ClapMel`, so that embeddings are repeatable.
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
        if section.checkpoint_path is not None:
            model = load_laion(Path(config.backbone(section.checkpoint_path)), section)
            extractor = ClapFeatureExtractor(
                sampling_rate=_LAION_SAMPLE_HZ,
                frequency_min=_LAION_LOWEST_HZ,
                truncation="fusion" if section.enable_fusion else "rand_trunc",
            )
            name = config.backbone(section.model_name or _LAION_TOKENIZER)
        else:
            name = config.backbone(section.model_name or (_FUSED if section.enable_fusion else _UNFUSED))
            _check_fusion(name, section.enable_fusion)
            model, extractor = _pretrained(name)
        if extractor.sampling_rate != section.sample_hz:
            raise UserError(f"{_SECTION}: sample_hz: {section.sample_hz}, but CLAP takes {extractor.sampling_rate} Hz")
        return cls(model, _tokenizer(name, model.config), extractor).to(device)

    def train(self, mode: bool = True) -> "Clap":
        """Stays in evaluation mode: no dropout, batch norm as trained."""
        return super().train(False)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Embeddings of length 1; of a prompt the first 77 tokens count."""
        tokens = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=_MOST_TEXT_TOKENS, return_tensors="pt"
        ).to(self.model.device)
        return self.model.get_text_features(tokens.input_ids, tokens.attention_mask).pooler_output

    def dropped_tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens of each prompt are beyond those that count."""
        tokens = self._tokenizer(list(prompts), verbose=False).input_ids
        return [max(len(ids) - _MOST_TEXT_TOKENS, 0) for ids in tokens]

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


def _check_fusion(name: str, enable_fusion: bool) -> None:
    """The model's own config against ours. Raises UserError."""
    try:
        description = PretrainedConfig.get_config_dict(name)[0]
    except (OSError, ValueError) as error:
        raise _cannot_load(name, "its config.json and weights", error) from error
    found = description.get("model_type", "absent")
    if found != "clap":
        raise UserError(f"{_SECTION}: model_name: the model_type in the config.json of {name} is {found}, not clap")
    fusion = description.get("audio_config", {}).get("enable_fusion", False)
    if fusion != enable_fusion:
        raise UserError(
            f"{_SECTION}: enable_fusion: {str(enable_fusion).lower()}, but {name} was trained "
            f"{'with' if fusion else 'without'} fusion"
        )


def _pretrained(name: str) -> tuple[ClapModel, ClapFeatureExtractor]:
    """The whole model in float32 and its front end's settings. Raises UserError."""
    disable_progress_bar()  # loading is quick
    try:
        extractor = ClapFeatureExtractor.from_pretrained(name)
        loaded: Any = ClapModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise _cannot_load(name, "its config.json, preprocessor_config.json, tokenizer and weights", error) from error
    model, loading = loaded
    missing = sorted(set(loading["missing_keys"]) - _CONSTANT)
    if missing:
        raise UserError(f"{_SECTION}: model_name: the weights of {name} lack {len(missing)} keys: {missing[0]}, ...")
    if (extractor.truncation == "fusion") != model.config.audio_config.enable_fusion:
        raise UserError(
            f"{_SECTION}: model_name: in {name} preprocessor_config.json has truncation {extractor.truncation!r}, "
            f"which contradicts enable_fusion in its config.json"
        )
    return model, extractor


def _tokenizer(name: str, architecture: ClapConfig) -> RobertaTokenizer:
    """RoBERTa's tokenizer, whose ids must be those of the text tower. Raises UserError."""
    try:
        tokenizer = RobertaTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, "vocab.json and merges.txt", error) from error
    text: Any = architecture.text_config
    found = (len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    expected = (text.vocab_size, text.pad_token_id, text.bos_token_id, text.eos_token_id)
    if found != expected:  # without its files transformers quietly makes up a tokenizer of five tokens
        raise UserError(
            f"{_SECTION}: model_name: no tokenizer of this CLAP in {name} ({found[0]} tokens, {expected[0]} expected); "
            "without a network give a local directory with RoBERTa's vocab.json and merges.txt, or tokenizer.json"
        )
    return tokenizer


def _cannot_load(name: str, needed: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f"{_SECTION}: model_name: cannot load {name} ({reason[:200]}); without a network give a local directory "
        f"with {needed}"
    )
