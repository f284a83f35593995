"""EnCodec's losses (EnCodec, 3.4): wave, multi-scale mel spectrogram, adversarial, feature matching, balancer."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from open_musiclm.training.distributed import all_reduce_mean

Maps = Sequence[Tensor]
_QUIETEST = 1e-5


class SpectrogramLoss(nn.Module):
    """L1 of mel spectrograms plus L2 of their logarithms, over windows of `window_lengths` samples."""

    def __init__(self, sample_hz: int, window_lengths: Sequence[int], most_mels: int = 64) -> None:
        super().__init__()
        self.spectrograms = nn.ModuleList(
            MelSpectrogram(
                sample_hz,
                n_fft=length,
                hop_length=length // 4,
                n_mels=min(most_mels, length // 8),
                power=1,
                normalized=True,
            )
            for length in window_lengths
        )

    def forward(
        self, wave: Float[Tensor, "batch samples"], target: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, ""]:
        """The mean over the windows."""
        losses = []
        for spectrogram in self.spectrograms:
            found, expected = spectrogram(wave), spectrogram(target)
            logarithms = (found + _QUIETEST).log() - (expected + _QUIETEST).log()
            losses.append(F.l1_loss(found, expected) + (logarithms.square().mean(dim=1) + _QUIETEST).sqrt().mean())
        return torch.stack(losses).mean()


def adversarial_loss(logits_of_decoded: Maps) -> Float[Tensor, ""]:
    """The decoder's hinge loss: 0 where every discriminator's logits are at least 1."""
    return torch.stack([F.relu(1 - logits).mean() for logits in logits_of_decoded]).mean()


def discriminator_loss(logits_of_real: Maps, logits_of_decoded: Maps) -> Float[Tensor, ""]:
    """The discriminators' hinge loss: 0 with logits of at least 1 for recorded and at most -1 for decoded sound."""
    pairs = zip(logits_of_real, logits_of_decoded, strict=True)
    return torch.stack([F.relu(1 - real).mean() + F.relu(1 + decoded).mean() for real, decoded in pairs]).mean()


def feature_matching_loss(maps_of_real: Sequence[Maps], maps_of_decoded: Sequence[Maps]) -> Float[Tensor, ""]:
    """L1 between the discriminators' inner layers, each relative to the recorded one's mean size over all processes."""
    distances = [
        F.l1_loss(decoded, real.detach()) / all_reduce_mean(real.abs().mean())
        for all_real, all_decoded in zip(maps_of_real, maps_of_decoded, strict=True)
        for real, decoded in zip(all_real, all_decoded, strict=True)
    ]
    return torch.stack(distances).mean()


class Balancer(nn.Module):
    """Loss weights as shares of the gradient (EnCodec, 3.4).

    Every loss's gradient at the decoded wave is divided by a moving average of its own norm, so that a weight says
    how much that loss steers the decoder, whatever the scale of the loss itself. The averages are part of the state.
    """

    norms: Float[Tensor, "losses"]
    steps: Float[Tensor, "losses"]

    def __init__(self, weights: Mapping[str, float], decay: float = 0.999) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.decay = decay
        self.register_buffer("norms", torch.zeros(len(self.weights)))
        self.register_buffer("steps", torch.zeros(len(self.weights)))

    def gradient(
        self, losses: Mapping[str, Float[Tensor, ""]], wave: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch samples"]:
        """The balanced gradient at `wave` of losses that are means over the batch; its norm per example is about 1.

        The moving averages are over the examples of all processes."""
        balanced, share = torch.zeros_like(wave), sum(self.weights.get(name, 0) for name in losses)
        for index, (name, weight) in enumerate(self.weights.items()):
            if name not in losses:
                continue
            (gradient,) = torch.autograd.grad(losses[name], wave, retain_graph=True)
            gradient = gradient * len(wave)  # that of each example's own loss
            norm = all_reduce_mean(gradient.norm(dim=-1).mean())
            finite = norm.isfinite()  # else this step is skipped, and must leave nothing behind
            moved = self.decay * self.norms[index] + (1 - self.decay) * norm
            self.norms[index] = torch.where(finite, moved, self.norms[index])
            self.steps[index] += finite
            average = self.norms[index] / (1 - self.decay ** self.steps[index].clamp(min=1))
            balanced += weight / share * gradient / average.clamp(min=1e-12)
        return balanced
