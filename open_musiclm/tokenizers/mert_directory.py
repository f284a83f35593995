"""A MERT or HuBERT as a directory in Hugging Face's layout, checked before anything is built.

MERT is HuBERT, except for three options that need its own Python code. That code runs only if the user allows it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from transformers import AutoModel, HubertConfig, HubertModel
from transformers.utils.logging import disable_progress_bar

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.foreign import CONFIG_NAME, Description, ForeignDirectory
from open_musiclm.config.json_files import shown
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.pretrained import Activation, Epsilon, Layers, Size, pretrained_model

TRUST_FLAG = "--trust_remote_code"
_MODEL_TYPES = ("hubert", "mert_model")
# A checkpoint may lack the vector that training puts in place of masked frames.
_UNUSED = frozenset({"masked_spec_embed"})
_Step = Annotated[int, Field(ge=1, le=1 << 12)]
_Steps = Annotated[list[_Step], Field(min_length=1, max_length=16)]


class _Hubert(Description):
    hidden_size: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-5
    feat_extract_norm: Literal["group", "layer"] = "group"
    feat_extract_activation: Activation = "gelu"
    feat_proj_layer_norm: bool = True
    conv_dim: Annotated[list[Size], Field(min_length=1, max_length=16)] = Field(default=[512] * 7)
    conv_stride: _Steps = Field(default=[5, 2, 2, 2, 2, 2, 2])
    conv_kernel: _Steps = Field(default=[10, 3, 3, 3, 3, 2, 2])
    conv_bias: bool = False
    num_conv_pos_embeddings: Size = 128
    num_conv_pos_embedding_groups: Size = 16
    conv_pos_batch_norm: bool = False
    do_stable_layer_norm: bool = False


class _Mert(Description):
    """What MERT adds to HuBERT's config: with all options off its weights are HuBERT's."""

    model_type: str = "absent"
    sample_rate: Annotated[int, Field(ge=1)] | None = None
    feature_extractor_cqt: bool = False
    deepnorm: bool = False
    attention_relax: float = -1.0

    @property
    def own_code(self) -> list[str]:
        """The options that are on and need Python code of the model's own."""
        own = [key for key in ("feature_extractor_cqt", "deepnorm") if getattr(self, key)]
        return own + (["attention_relax"] if self.attention_relax > 0 else [])


class MertDirectory:
    """A directory, by its path or hub id; `key` is what named it. What it holds raises UserError if it is wrong."""

    def __init__(self, name: str | Path, key: str) -> None:
        self.files = ForeignDirectory(name, key)
        self.description = self.files.read(CONFIG_NAME, _Mert)
        if self.description.model_type not in _MODEL_TYPES:
            raise self.files.refusal(
                f"{CONFIG_NAME}: model_type: a HuBERT or MERT is needed, found {shown(self.description.model_type)}"
            )

    def load(self, trust_remote_code: bool = False) -> HubertModel:
        """The whole model in float32 and evaluation mode; one with code of its own only if that is trusted."""
        if self.description.own_code:
            return self._load_with_own_code(trust_remote_code)
        config = self._config()
        tensors = self.files.tensors()
        return pretrained_model(HubertModel, config, tensors, self.files)

    def paths(self) -> list[Path]:
        """The files that `load` reads. Raises UserError for a model with code of its own."""
        if self.description.own_code:
            raise self.files.refusal(
                f"it uses {', '.join(self.description.own_code)}, which needs Python code, and a bundle carries none; "
                "name this model by its hub id"
            )
        self._config()
        return [self.files.need(CONFIG_NAME), *self.files.weights_files()]

    def _config(self) -> HubertConfig:
        description = self.files.read(CONFIG_NAME, _Hubert)
        with self.files.reading(CONFIG_NAME):  # without the masks, for nothing is masked here
            return HubertConfig(**description.given(), mask_time_prob=0.0, mask_feature_prob=0.0)

    def _load_with_own_code(self, trust_remote_code: bool) -> HubertModel:
        if not trust_remote_code:
            raise self.files.refusal(
                f"it uses {', '.join(self.description.own_code)}, for which Python code that comes with the model "
                f"would run; read that code, then allow it with {TRUST_FLAG}"
            )
        disable_progress_bar()  # loading is quick
        with self.files.reading():
            loaded: Any = AutoModel.from_pretrained(
                self.files.name, trust_remote_code=True, dtype=torch.float32, output_loading_info=True
            )
            model, loading = loaded
            missing = sorted(set(loading["missing_keys"]) - _UNUSED)
            if missing:
                raise self.files.refusal(f"its weights lack {len(missing)} keys: {missing[0]}, ...")
            check_finite(model.state_dict(), self.files.name)
            return model


def check_consent(in_config: bool, trust_remote_code: bool) -> None:
    """A config, which may come with a bundle, cannot allow code to run. Raises UserError."""
    if in_config and not trust_remote_code:
        raise UserError(
            "hubert_kmeans_cfg: trust_remote_code: true in a config allows nothing by itself; if you have read the "
            f"model's own code, allow it with {TRUST_FLAG} (in Python trust_remote_code=True), or take the key out"
        )
