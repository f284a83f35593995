"""MERT's training task (Li et al. 2023, 3): predict the codec tokens and pitches of masked frames."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import HubertModel


class MertLoss(NamedTuple):
    """The two losses, and the share of codec tokens that were predicted right, per codebook."""

    tokens: Float[Tensor, ""]
    pitches: Float[Tensor, ""]
    accuracy: Float[Tensor, "quantizers"]


class MertHeads(nn.Module):
    """Linear heads on the last layer: logits of every codec codebook, and a constant-Q frame."""

    def __init__(self, feature_dim: int, quantizers: int, codebook_size: int, pitches: int) -> None:
        super().__init__()
        self.quantizers = quantizers
        self.tokens = nn.Linear(feature_dim, quantizers * codebook_size)
        self.pitches = nn.Linear(feature_dim, pitches)

    def forward(
        self,
        features: Float[Tensor, "batch time features"],
        codes: Int[Tensor, "batch time quantizers"],
        pitches: Float[Tensor, "batch time pitches"],
        masked: Bool[Tensor, "batch time"],
    ) -> MertLoss:
        """Losses over the masked frames, at least one."""
        inside = features[masked]
        logits = self.tokens(inside).float().view(len(inside), self.quantizers, -1)
        targets = codes[masked]
        accuracy = (logits.detach().argmax(dim=-1) == targets).float().mean(dim=0)
        pitch_loss = F.mse_loss(self.pitches(inside).float(), pitches[masked])
        return MertLoss(F.cross_entropy(logits.transpose(1, 2), targets), pitch_loss, accuracy)


def mask_spans(
    rngs: Sequence[np.random.Generator], frames: int, start_probability: float, span: int
) -> Bool[Tensor, "batch time"]:
    """Masks of spans of `span` frames that begin anywhere with `start_probability`; every example has one at least."""
    starts = torch.from_numpy(np.stack([rng.random(frames) < start_probability for rng in rngs]))
    starts[torch.arange(len(rngs)), torch.tensor([int(rng.integers(frames)) for rng in rngs])] = True
    masked = starts.clone()
    for shift in range(1, min(span, frames)):
        masked[:, shift:] |= starts[:, :-shift]
    return masked


def frames_at(
    codes: Int[Tensor, "batch acoustic quantizers"], from_hz: int, to_hz: int, frames: int
) -> Int[Tensor, "batch frames quantizers"]:
    """Codec tokens at another frame rate: those at the centre of each frame."""
    centres = (torch.arange(frames, device=codes.device) + 0.5) / to_hz
    return codes[:, (centres * from_hz).long().clamp(max=codes.shape[1] - 1)]


def masked_features(
    model: HubertModel, waves: Float[Tensor, "batch samples"], masked: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time features"]:
    """The last layer's features, with the model's mask vector in place of the masked frames."""
    return model(waves, mask_time_indices=masked).last_hidden_state
