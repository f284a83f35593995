"""Sound to semantic tokens: the features of one MERT (or HuBERT) layer, and k-means over them.

MERT: Li et al. 2023; k-means over a middle layer as in AudioLM (Borsos et al. 2022). Features of a wave depend
on its whole length (the front end normalises over time), so waves of one batch have equal lengths: no padding.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import HubertModel

from open_musiclm.checkpoints import load_weights
from open_musiclm.config import HubertKmeansConfig, ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.mert_directory import MertDirectory, check_consent

_SECTION = "hubert_kmeans_cfg"


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
    def load(cls, config: ModelConfig, device: torch.device, trust_remote_code: bool = False) -> "Mert":
        """The model that `hubert_kmeans_cfg` names, a hub id or a local directory.

        `trust_remote_code` lets Python code run that comes with the model; a config alone cannot. Raises UserError.
        """
        section = config.hubert_kmeans_cfg
        check_consent(section.trust_remote_code, trust_remote_code)
        directory = mert_directory(config)
        _check(section, directory.description.sample_rate)
        model = directory.load(trust_remote_code)
        with directory.files.reading():  # a model with code of its own may be of any shape
            _check_hop(section, model)
            return cls(model, section).to(device)

    def train(self, mode: bool = True) -> "Mert":
        """Stays in evaluation mode: no dropout, no masked frames."""
        return super().train(False)

    def frames(self, samples: int) -> int:
        """The number of frames of a wave of `samples`: 499 for ten seconds at 16 kHz."""
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
    def load(
        cls, kmeans_path: Path, config: ModelConfig, device: torch.device, trust_remote_code: bool = False
    ) -> "SemanticTokenizer":
        """MERT by the config, see `Mert.load`; centroids from a checkpoint of this project or a released joblib file.

        Raises UserError.
        """
        centroids = load_centroids(kmeans_path, config)
        mert = Mert.load(config, device, trust_remote_code)
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
    """The centroids of a checkpoint of this project or of a released joblib file. Raises UserError."""
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


def mert_directory(config: ModelConfig) -> MertDirectory:
    """The directory that `hubert_kmeans_cfg` names. Raises UserError."""
    return MertDirectory(config.backbone(config.hubert_kmeans_cfg.model_name), f"{_SECTION}: model_name")


def _check(section: HubertKmeansConfig, sample_rate: int | None) -> None:
    """The config against the sample rate that the model was trained at. Raises UserError."""
    if sample_rate is not None and sample_rate != section.target_sample_hz:
        raise UserError(
            f"{_SECTION}: target_sample_hz: {section.target_sample_hz}, but {section.model_name} was trained at "
            f"{sample_rate}"
        )


def _check_hop(section: HubertKmeansConfig, model: HubertModel) -> None:
    """The config against the model's samples per frame. Raises UserError."""
    hop = math.prod(model.config.conv_stride)
    if hop != section.seq_len_multiple_of:
        raise UserError(
            f"{_SECTION}: seq_len_multiple_of: {section.seq_len_multiple_of}, but {section.model_name} has one frame "
            f"every {hop} samples, {section.target_sample_hz / hop:g} a second"
        )
