"""Sound to semantic tokens: the features of one MERT (or HuBERT) layer, and k-means over them.

MERT: Li et al. 2023; k-means over a middle layer as in AudioLM (Borsos et al. 2022). Features of a wave depend
on its whole length (the front end normalises over time), so waves of one batch have equal lengths: no padding.
"""

import math
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, HubertConfig, HubertModel, PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from open_musiclm.checkpoints import load_weights
from open_musiclm.config import HubertKmeansConfig, ModelConfig
from open_musiclm.errors import UserError

_SECTION = "hubert_kmeans_cfg"
_MODEL_TYPES = ("hubert", "mert_model")
# A checkpoint may lack the vector that training puts in place of masked frames.
_UNUSED = frozenset({"masked_spec_embed"})


class Mert(nn.Module):
    """A frozen HuBERT-shaped transformer, cut off after the layer whose output is wanted.

    `sample_hz` is the rate of its waves, `feature_dim` the size of a frame's features.
    """

    def __init__(self, model: HubertModel, config: HubertKmeansConfig) -> None:
        super().__init__()
        layers = model.encoder.layers
        if config.embed_layer > len(layers):
            raise UserError(f"{_SECTION}: embed_layer: {config.embed_layer}, but {config.model_name} has {len(layers)}")
        if config.embed_layer < len(layers) and model.config.do_stable_layer_norm:
            model.encoder.register_module("layer_norm", nn.Identity())  # it belongs after the very last layer
        model.encoder.layers = layers[: config.embed_layer]
        self.model = model.float().requires_grad_(False)
        self.sample_hz = config.target_sample_hz
        self.feature_dim: int = model.config.hidden_size
        self._kernels_and_strides = list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
        self._multiple_of = config.seq_len_multiple_of
        self._normalize = config.normalize_embeds
        self.eval()

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device) -> "Mert":
        """The model that `hubert_kmeans_cfg` names, a hub id or a local directory. Raises UserError."""
        section = config.hubert_kmeans_cfg
        name = config.backbone(section.model_name)
        description = _description(name)
        _check(section, description)
        return cls(_pretrained(name, section, description), section).to(device)

    def train(self, mode: bool = True) -> "Mert":
        """Stays in evaluation mode: no dropout, no masked frames."""
        return super().train(False)

    def frames(self, samples: int) -> int:
        """How many frames a wave of `samples` has: 499 for ten seconds at 16 kHz, not 500."""
        length = samples - samples % self._multiple_of
        for kernel, stride in self._kernels_and_strides:
            length = max((length - kernel) // stride + 1, 0)
        return length

    @torch.no_grad()
    def features(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch time features"]:
        """The layer's output per frame, of zero mean and unit variance if `normalize_embeds`.

        Waves are cut to a multiple of `seq_len_multiple_of` samples.
        """
        if self.frames(waves.shape[1]) == 0:
            return waves.new_zeros(waves.shape[0], 0, self.feature_dim)
        whole = waves.shape[1] - waves.shape[1] % self._multiple_of
        features = self.model(waves[:, :whole].float()).last_hidden_state
        if not self._normalize:
            return features
        variance, mean = torch.var_mean(features, dim=-1, keepdim=True)
        return (features - mean) / (variance + 1e-7).sqrt()


class SemanticTokenizer(nn.Module):
    """MERT and the centroids [codebook_size, features] that name its features: a frame's token is the nearest."""

    def __init__(self, mert: Mert, centroids: Float[Tensor, "codebook features"]) -> None:
        super().__init__()
        self.mert = mert
        self.register_buffer("centroids", centroids)
        self.centroids: Tensor

    @classmethod
    def load(cls, kmeans_path: Path, config: ModelConfig, device: torch.device) -> "SemanticTokenizer":
        """MERT by the config, centroids from a checkpoint of ours or a released joblib file. Raises UserError."""
        centroids = load_centroids(kmeans_path, config)
        mert = Mert.load(config, device)
        if centroids.shape[1] != mert.feature_dim:
            raise UserError(
                f"{kmeans_path}: centroids of {centroids.shape[1]} numbers; the features of "
                f"{config.hubert_kmeans_cfg.model_name} ({_SECTION}: model_name) have {mert.feature_dim}"
            )
        return cls(mert, centroids).to(device)

    @torch.no_grad()
    def encode(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time"]:
        """Semantic tokens of waves at `mert.sample_hz` that were normalised over their whole file."""
        return self.assign(self.mert.features(waves))

    def assign(self, features: Float[Tensor, "batch time features"]) -> Int[Tensor, "batch time"]:
        """The nearest centroid of each frame, as scikit-learn's predict."""
        return (self.centroids.square().sum(-1) - 2 * features @ self.centroids.t()).argmin(-1)


def load_centroids(kmeans_path: Path, config: ModelConfig) -> Float[Tensor, "codebook features"]:
    """The centroids of a checkpoint of ours or of a released joblib file. Raises UserError."""
    weights = load_weights(kmeans_path, "hubert_kmeans")
    centroids = weights.tensors.get("centroids")
    expected = config.hubert_kmeans_cfg.codebook_size
    if centroids is None or centroids.ndim != 2 or centroids.shape[0] != expected:
        found = "missing" if centroids is None else str(list(centroids.shape))
        raise UserError(
            f"{weights.path}: centroids are {found}; "
            f"the config wants [{expected}, features] ({_SECTION}: codebook_size)"
        )
    return centroids.float()


def _description(name: str) -> dict:
    """The content of the model's config.json."""
    try:
        return PretrainedConfig.get_config_dict(name)[0]
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error


def _check(section: HubertKmeansConfig, description: dict) -> None:
    """The config against what the model is. Raises UserError."""
    if description.get("model_type") not in _MODEL_TYPES:
        found = description.get("model_type")
        raise UserError(f"{_SECTION}: model_name: {section.model_name} is of type {found}; HuBERT or MERT is needed")
    rate = description.get("sample_rate", section.target_sample_hz)
    if rate != section.target_sample_hz:
        raise UserError(
            f"{_SECTION}: target_sample_hz: {section.target_sample_hz}, but {section.model_name} was trained at {rate}"
        )


def _pretrained(name: str, section: HubertKmeansConfig, description: dict) -> HubertModel:
    """The whole model in float32, its front end checked against the config."""
    disable_progress_bar()  # loading is quick
    # MERT's own code differs from HuBERT only in these three; with all of them off HuBERT reads its weights.
    own = [key for key in ("feature_extractor_cqt", "deepnorm") if description.get(key)]
    own += ["attention_relax"] if description.get("attention_relax", -1.0) > 0 else []
    if own and not section.trust_remote_code:
        raise UserError(
            f"{_SECTION}: model_name: {section.model_name} uses {', '.join(own)}, which runs Python code that comes "
            "with the model; read that code, then allow it with trust_remote_code: true in this section"
        )
    try:
        if own:
            loaded = AutoModel.from_pretrained(
                name, trust_remote_code=True, dtype=torch.float32, output_loading_info=True
            )
        else:
            configured = HubertConfig.from_dict(description)
            loaded = HubertModel.from_pretrained(name, config=configured, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, UnpicklingError) as error:
        raise _cannot_load(name, error) from error
    model, loading = loaded
    missing = sorted(set(loading["missing_keys"]) - _UNUSED)
    if missing:
        raise UserError(f"{_SECTION}: model_name: the weights of {name} lack {len(missing)} keys: {missing[0]}, ...")
    hop = math.prod(model.config.conv_stride)
    if hop != section.seq_len_multiple_of:
        raise UserError(
            f"{_SECTION}: seq_len_multiple_of: {section.seq_len_multiple_of}, but {section.model_name} has one frame "
            f"every {hop} samples, {section.target_sample_hz / hop:g} a second"
        )
    return model


def _cannot_load(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f"{_SECTION}: model_name: cannot load {name} ({reason[:200]}); without a network give a local directory "
        "with its config.json and weights"
    )
