"""A CLAP as a directory in Hugging Face's layout: model, front end and tokenizer, checked before anything is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import torch
from pydantic import Field
from tokenizers.normalizers import Lowercase
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.checkpoints.foreign import CONFIG_NAME, Description, ForeignDirectory
from open_musiclm.config.json_files import read_json_object, shown
from open_musiclm.text_files import read_text
from open_musiclm.tokenizers.pretrained import Activation, Dropout, Epsilon, Layers, Size, TokenId, pretrained_model

FRONT_END_NAME = "preprocessor_config.json"
TOKENIZER_NAME, VOCABULARY_NAME, MERGES_NAME = "tokenizer.json", "vocab.json", "merges.txt"
LONGEST_PROMPT_TOKENS = 77
# Weights may lack these buffers, which only count.
CONSTANT = frozenset(("text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids"))
_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_MOST_MERGES_BYTES = 1 << 24
_Side = Annotated[int, Field(ge=1, le=64)]
_Sides = _Side | Annotated[list[_Side], Field(min_length=2, max_length=2)]
_Count = Annotated[int, Field(ge=1, le=64)]
_Counts = Annotated[list[_Count], Field(min_length=1, max_length=8)]


class _Text(Description):
    vocab_size: Size = 50265
    hidden_size: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Dropout = 0.1
    attention_probs_dropout_prob: Dropout = 0.1
    max_position_embeddings: Size = 514
    type_vocab_size: Size = 1
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: TokenId = 1
    bos_token_id: TokenId = 0
    eos_token_id: TokenId = 2


class _Audio(Description):
    window_size: _Side = 8
    num_mel_bins: Annotated[int, Field(ge=1, le=512)] = 64
    spec_size: Annotated[int, Field(ge=1, le=1024)] = 256
    hidden_act: Activation = "gelu"
    patch_size: _Sides = 4
    patch_stride: _Sides = 4
    hidden_size: Size = 768
    depths: _Counts = Field(default=[2, 2, 6, 2])
    num_attention_heads: _Counts = Field(default=[4, 8, 16, 32])
    enable_fusion: bool = False
    hidden_dropout_prob: Dropout = 0.1
    fusion_type: Literal["aff_2d"] | None = None
    patch_embed_input_channels: Literal[1] = 1
    flatten_patch_embeds: Literal[True] = True
    patch_embeds_hidden_size: Size = 96
    enable_patch_layer_norm: bool = True
    drop_path_rate: Dropout = 0.0
    attention_probs_dropout_prob: Dropout = 0.0
    qkv_bias: bool = True
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    aff_block_r: _Count = 4
    layer_norm_eps: Epsilon = 1e-5


class _Clap(Description):
    model_type: str = "absent"
    text_config: _Text = Field(default_factory=_Text)
    audio_config: _Audio = Field(default_factory=_Audio)
    projection_dim: Size = 512
    projection_hidden_act: Activation = "relu"
    logit_scale_init_value: Annotated[float, Field(gt=0, le=1e4)] = 1 / 0.07


class _FrontEnd(Description):
    feature_extractor_type: Literal["ClapFeatureExtractor"] = "ClapFeatureExtractor"
    feature_size: Annotated[int, Field(ge=1, le=512)] = 64
    sampling_rate: Annotated[int, Field(ge=1000, le=384000)] = 48000
    hop_length: Annotated[int, Field(ge=1, le=1 << 14)] = 480
    max_length_s: Annotated[int, Field(ge=1, le=60)] = 10
    fft_window_size: Annotated[int, Field(ge=16, le=1 << 14)] = 1024
    frequency_min: Annotated[float, Field(ge=0)] = 0
    frequency_max: Annotated[float, Field(gt=0)] = 14000
    padding: Literal["repeatpad"] = "repeatpad"
    truncation: Literal["fusion", "rand_trunc"] = "fusion"


@dataclass(frozen=True)
class ClapParts:
    """What such a directory holds; the model is in float32 and evaluation mode."""

    model: ClapModel
    tokenizer: RobertaTokenizer
    extractor: ClapFeatureExtractor

    def save(self, folder: Path) -> None:
        """Writes a directory of them."""
        for part in (self.model, self.tokenizer, self.extractor):
            part.save_pretrained(folder)


class ClapDirectory:
    """A directory that is opened in steps, the small files first; each step raises UserError.

    `name` is a path or hub id, `key` what named it.
    """

    def __init__(self, name: str | Path, key: str) -> None:
        self.files = ForeignDirectory(name, key)

    def config(self) -> ClapConfig:
        """The architecture that its config.json describes."""
        content = self.files.read_object(CONFIG_NAME)
        if content.get("model_type") != "clap":
            self._refuse(f"{CONFIG_NAME}: model_type: expected 'clap', found {shown(content.get('model_type'))}")
        description = self.files.read(CONFIG_NAME, _Clap)
        text, audio = description.text_config, description.audio_config
        if len(audio.depths) != len(audio.num_attention_heads):
            self._refuse(f"{CONFIG_NAME}: audio_config: depths and num_attention_heads differ in length")
        if audio.hidden_size != audio.patch_embeds_hidden_size * 2 ** (len(audio.depths) - 1):
            self._refuse(
                f"{CONFIG_NAME}: audio_config: hidden_size is not what patch_embeds_hidden_size and depths give"
            )
        if text.max_position_embeddings <= LONGEST_PROMPT_TOKENS + text.pad_token_id:
            self._refuse(
                f"{CONFIG_NAME}: text_config: max_position_embeddings is {text.max_position_embeddings}; prompts of "
                f"{LONGEST_PROMPT_TOKENS} tokens need {LONGEST_PROMPT_TOKENS + text.pad_token_id + 1}"
            )
        with self.files.reading(CONFIG_NAME):
            values = description.model_dump(exclude_unset=True, exclude={"model_type", "text_config", "audio_config"})
            return ClapConfig(text_config=text.given(), audio_config=audio.given(), **values)

    def extractor(self) -> ClapFeatureExtractor:
        """The settings of its front end."""
        description = self.files.read(FRONT_END_NAME, _FrontEnd)
        if not description.frequency_min < description.frequency_max <= description.sampling_rate / 2:
            self._refuse(
                f"{FRONT_END_NAME}: expected frequency_min {description.frequency_min:g} below frequency_max "
                f"{description.frequency_max:g}, and that at most half of sampling_rate {description.sampling_rate}"
            )
        with self.files.reading(FRONT_END_NAME):
            return ClapFeatureExtractor(**description.given())

    def tokenizer(self, architecture: ClapConfig) -> RobertaTokenizer:
        """RoBERTa's tokenizer, whose ids must be those of the text tower."""
        vocabulary, merges, ignores_case = self._vocabulary()
        text: _Text = architecture.text_config  # type: ignore[assignment]
        ids = [vocabulary.get(token) for token in ("<pad>", "<s>", "</s>")]
        expected = [text.pad_token_id, text.bos_token_id, text.eos_token_id]
        if len(vocabulary) != text.vocab_size or ids != expected or not vocabulary.keys() >= set(_SPECIAL_TOKENS):
            self._refuse(
                f"it has no tokenizer of this CLAP ({len(vocabulary)} tokens, {text.vocab_size} expected; "
                f"ids of <pad>, <s> and </s> {ids}, {expected} expected); give a directory with RoBERTa's "
                f"{VOCABULARY_NAME} and {MERGES_NAME}, or {TOKENIZER_NAME}"
            )
        with self.files.reading(TOKENIZER_NAME):
            tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST_PROMPT_TOKENS)  # type: ignore[arg-type]
            if ignores_case:
                tokenizer.backend_tokenizer.normalizer = Lowercase()
            return tokenizer

    def load(self) -> ClapParts:
        """All parts, which must fit each other."""
        config, extractor = self.config(), self.extractor()
        self._check_geometry(config, extractor)
        tokenizer = self.tokenizer(config)
        model = pretrained_model(ClapModel, config, self.files.tensors(), self.files, CONSTANT)
        return ClapParts(model, tokenizer, extractor)

    def paths(self) -> list[Path]:
        """The files that `load` reads."""
        self.config(), self.extractor()
        weights = self.files.weights_files()
        return [self.files.need(CONFIG_NAME), self.files.need(FRONT_END_NAME), *self.tokenizer_paths(), *weights]

    def tokenizer_paths(self) -> list[Path]:
        """The files that `tokenizer` reads."""
        self._vocabulary()
        whole = self.files.find(TOKENIZER_NAME)
        return [whole] if whole else [self.files.need(VOCABULARY_NAME), self.files.need(MERGES_NAME)]

    def _vocabulary(self) -> tuple[dict[str, int], list[tuple[str, str]], bool]:
        """The ids of the tokens, what is merged to a token, in this order, and whether letters are made small first."""
        path = self.files.need(TOKENIZER_NAME, VOCABULARY_NAME)
        with self.files.reading(path.name):
            content, ignores_case = read_json_object(path), False
            if path.name == TOKENIZER_NAME:
                ignores_case = content.get("normalizer") == {"type": "Lowercase"}
                vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
                added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
                vocabulary = added | vocabulary
            else:
                text = read_text(self.files.need(MERGES_NAME), _MOST_MERGES_BYTES)
                vocabulary, merges = content, [line for line in text.split("\n") if line and line[:8] != "#version"]
            pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
            if sorted(vocabulary.values()) != list(range(len(vocabulary))):
                self._refuse(f"{path.name}: the ids of its tokens are not 0, 1, 2 and so on")
            for pair in pairs:
                if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
                    self._refuse(f"{path.name}: it merges to a token that it does not have")
            return vocabulary, pairs, ignores_case  # type: ignore[return-value]

    def _check_geometry(self, config: ClapConfig, extractor: ClapFeatureExtractor) -> None:
        """Whether the audio tower takes the front end's spectrograms."""
        audio: _Audio = config.audio_config  # type: ignore[assignment]
        if (extractor.truncation == "fusion") != audio.enable_fusion:
            self._refuse(
                f"{FRONT_END_NAME} has truncation {extractor.truncation!r}, which contradicts enable_fusion in "
                f"{CONFIG_NAME}"
            )
        if extractor.feature_size != audio.num_mel_bins:
            self._refuse(
                f"{FRONT_END_NAME} has feature_size {extractor.feature_size}, {CONFIG_NAME} num_mel_bins "
                f"{audio.num_mel_bins}"
            )
        frames = extractor.nb_max_samples // extractor.hop_length + 1
        released = ClapConfig().audio_config
        keys = ("window_size", "spec_size", "num_mel_bins", "patch_size", "patch_stride", "depths")
        if frames == 1001 and all(str(getattr(audio, key)) == str(getattr(released, key)) for key in keys):
            return  # these fit
        whole = config.to_dict()
        whole["audio_config"]["enable_fusion"] = False  # it changes no shape, and cannot be tried without numbers
        alone = ClapConfig.from_dict(whole)
        with self.files.reading(CONFIG_NAME), torch.no_grad(), torch.device("meta"):
            ClapModel(alone).eval().get_audio_features(torch.zeros(1, 1, frames, audio.num_mel_bins))

    def _refuse(self, reason: str) -> NoReturn:
        raise self.files.refusal(reason)
