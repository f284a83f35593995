"""An ear for rhythm beside CLAP's: how well a text goes with the onsets that MERT's features tell of.

CLAP pools patches of a spectrogram and hardly tells tempi apart. Where MERT's features tell onsets, their first
principal direction is how strongly something begins, and its autocorrelation tells how fast. Canonical correlations
(Hotelling 1936) find what texts say about that, and in the Gaussian model behind them (Bach and Jordan 2005) it is
known how much likelier a rhythm is with a text than without.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from open_musiclm.checkpoints import load_into, load_weights
from open_musiclm.config import ModelConfig
from open_musiclm.errors import UserError

_LAGS_SECONDS = (0.08, 2.0)
SHORTEST_SECONDS = 4.0  # of what is worth listening to: in less, two seconds hardly repeat
_PEAKS = (0.2, 0.35, 0.5, 0.7)  # of the way from the median of a curve to its highest peaks
_HIGHEST_PEAKS = 0.98
_NOTHING = 1e-6
# A rhythm that is farther from all others than this, in standard deviations, says no more.
_FARTHEST = 4.0
_ANY_WEIGHT = "rhythm_directions"


class RhythmEar(nn.Module):
    """What `training/rhythm_ear.py` learned; `frame_hz` is the rate of MERT's features."""

    def __init__(self, frame_hz: int, features: int, text_dim: int, components: int) -> None:
        super().__init__()
        self.frame_hz = frame_hz
        count = 2 * _descriptors(frame_hz)
        shapes = {
            "direction": (features,),
            "rhythm_mean": (count,),
            "rhythm_spread": (count,),
            "text_mean": (text_dim,),
            "rhythm_directions": (count, components),
            "text_directions": (text_dim, components),
            "correlations": (components,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.direction: Tensor
        self.rhythm_mean: Tensor
        self.rhythm_spread: Tensor
        self.text_mean: Tensor
        self.rhythm_directions: Tensor
        self.text_directions: Tensor
        self.correlations: Tensor

    @classmethod
    def load(cls, path: Path, config: ModelConfig, device: torch.device) -> "RhythmEar":
        """An ear from its checkpoint. Raises UserError."""
        weights = load_weights(path, "rhythm_ear")
        if _ANY_WEIGHT not in weights.tensors or "direction" not in weights.tensors:
            raise UserError(f"{weights.path}: holds no ear for rhythm; make one with scripts/train_rhythm_ear.py")
        (features,), components = weights.tensors["direction"].shape, weights.tensors[_ANY_WEIGHT].shape[-1]
        text_dim = weights.tensors["text_mean"].shape[-1] if "text_mean" in weights.tensors else 0
        ear = cls(config.hubert_kmeans_cfg.output_hz, features, text_dim, components)
        load_into(ear, weights)
        return ear.to(device)

    def check(self, path: Path, features: int, text_dim: int) -> None:
        """Raises UserError where the ear at `path` was learned with backbones of other sizes."""
        known = (len(self.direction), len(self.text_mean))
        if known != (features, text_dim):
            raise UserError(
                f"{path}: this ear for rhythm knows features of {known[0]} and texts of {known[1]} numbers, the "
                f"config's MERT and CLAP have {features} and {text_dim}; learn one with scripts/train_rhythm_ear.py"
            )

    def hear(
        self, texts: Float[Tensor, "batch dim"], features: Float[Tensor, "batch time features"], window: int
    ) -> Float[Tensor, "batch"]:
        """How many nats likelier the rhythms of features (the centroids of semantic tokens) are with the texts.

        Of what is longer than `window` frames, the mean over windows; the last one may begin earlier.
        """
        parts = list(features.split(window, dim=1))
        if parts[-1].shape[1] < window:
            parts[-1] = features[:, -window:]
        rhythms = [describe_rhythm(part, self.direction, self.frame_hz) for part in parts]
        return torch.stack([self.information(texts, rhythm) for rhythm in rhythms]).mean(dim=0)

    def information(
        self, texts: Float[Tensor, "batch dim"], rhythms: Float[Tensor, "batch descriptors"]
    ) -> Float[Tensor, "batch"]:
        """How many nats likelier each rhythm is with its text's CLAP embedding than without.

        It is the sum over the canonical pairs (u, v) of correlation r of log p(u, v) / (p(u) p(v)).
        """
        scaled = ((rhythms - self.rhythm_mean) / self.rhythm_spread).clamp(-_FARTHEST, _FARTHEST)
        heard, said = scaled @ self.rhythm_directions, (texts - self.text_mean) @ self.text_directions
        r = self.correlations
        exponent = r * heard * said - r.square() * (heard.square() + said.square()) / 2
        return (exponent / (1 - r.square()) - (1 - r.square()).log() / 2).sum(dim=1)


def describe_rhythm(
    features: Float[Tensor, "batch time features"], direction: Float[Tensor, "features"], frame_hz: int
) -> Float[Tensor, "batch descriptors"]:
    """Descriptors of two curves: the features along `direction`, and how far each frame is from the one before."""
    change = torch.linalg.vector_norm(features.diff(dim=1), dim=2)
    return torch.cat([_described(features @ direction, frame_hz), _described(change, frame_hz)], dim=1)


def _described(curves: Float[Tensor, "batch time"], frame_hz: int) -> Float[Tensor, "batch descriptors"]:
    """Autocorrelation, peaks a second of four heights, spread and roughness of curves of at least two frames."""
    centred = curves - curves.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    scaled = centred / (spread + _NOTHING)
    time = curves.shape[1]
    periodicity = [
        (scaled[:, :-lag] * scaled[:, lag:]).sum(dim=1) / time if lag < time else scaled.new_zeros(len(scaled))
        for lag in _lags(frame_hz)
    ]
    median = scaled.median(dim=1, keepdim=True).values
    height = scaled.quantile(_HIGHEST_PEAKS, dim=1, keepdim=True) - median
    inner = scaled[:, 1:-1]
    peak = (inner > scaled[:, :-2]) & (inner >= scaled[:, 2:])
    peaks = [(peak & (inner > median + share * height)).sum(dim=1) * (frame_hz / time) for share in _PEAKS]
    roughness = scaled.diff(dim=1).abs().mean(dim=1)
    return torch.stack([*periodicity, *peaks, spread[:, 0], roughness], dim=1)


def _lags(frame_hz: int) -> range:
    shortest, longest = _LAGS_SECONDS
    return range(round(shortest * frame_hz), round(longest * frame_hz))


def _descriptors(frame_hz: int) -> int:
    """How many descriptors a curve has."""
    return len(_lags(frame_hz)) + len(_PEAKS) + 2
