"""A judge of instrument family and tempo class: learned from labelled clips, knows nothing of CLAP or of prompts.

A small convolutional network over spectrograms, learned anew within minutes wherever a result is to be checked. What it
learns from is played by other instruments than what it judges, so its clips are transposed, coloured and partly hidden.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from open_musiclm.pitch_bands import pitch_bands

SAMPLE_HZ = 24000
_WINDOW, _HOP = 1024, 240  # a hundred frames a second
_BANDS = 64  # of about an octave's eighth
_LOWEST_HZ = 60.0
_FLOOR_DB = 60.0
_TRANSPOSITION_BANDS = 6
_COLOUR_DB, _COLOUR_POINTS = 6.0, 6
_HIDDEN_BANDS = 10
_EPOCHS, _BATCH, _RATE = 60, 32, 2e-3
_LABEL_SMOOTHING = 0.1


class Judge:
    """Tells the instrument family and the tempo class of waves at 24 kHz, all of one length."""

    def fit(self, waves: Sequence[Float[Tensor, "samples"]], families: Sequence[str], tempi: Sequence[str]) -> "Judge":
        """Learns from labelled clips; the same clips make the same judge."""
        generator = torch.Generator().manual_seed(0)
        self._names = (sorted(set(families)), sorted(set(tempi)))
        wanted = torch.tensor(
            [[self._names[0].index(a), self._names[1].index(b)] for a, b in zip(families, tempi, strict=True)]
        )
        spectra = torch.stack([_spectrogram(wave) for wave in waves])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self._network = _Network(len(self._names[0]), len(self._names[1]))
        _learn(self._network, spectra, wanted, generator)
        return self

    def families(self, waves: Sequence[Float[Tensor, "samples"]]) -> list[str]:
        """The instrument family of each wave."""
        return self._heard(waves, 0)

    def tempi(self, waves: Sequence[Float[Tensor, "samples"]]) -> list[str]:
        """The tempo class of each wave."""
        return self._heard(waves, 1)

    @torch.no_grad()
    def _heard(self, waves: Sequence[Float[Tensor, "samples"]], head: int) -> list[str]:
        logits = [self._network(_spectrogram(wave)[None])[head] for wave in waves]
        return [self._names[head][int(answer.argmax())] for answer in logits]


class _Network(nn.Module):
    """Spectrograms [batch, bands, time] to logits of families and of tempi."""

    def __init__(self, families: int, tempi: int) -> None:
        super().__init__()
        channels = (1, 24, 32, 48, 64)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 5, stride=2, padding=2), nn.BatchNorm2d(after), nn.ReLU())
                for before, after in zip(channels, channels[1:], strict=False)
            )
        )
        width = 2 * channels[-1] * (_BANDS // 2 ** (len(channels) - 1))
        self.drop = nn.Dropout(0.3)
        self.family, self.tempo = nn.Linear(width, families), nn.Linear(width, tempi)

    def forward(self, spectra: Float[Tensor, "batch bands time"]) -> tuple[Tensor, Tensor]:
        """Every place in time votes: mean and deviation over time of what the convolutions find."""
        found = self.layers(spectra[:, None]).flatten(1, 2)
        summary = self.drop(torch.cat((found.mean(dim=2), found.std(dim=2)), dim=1))
        return self.family(summary), self.tempo(summary)


def _learn(
    network: _Network,
    spectra: Float[Tensor, "clips bands time"],
    wanted: Int[Tensor, "clips 2"],
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.05)
    steps = _EPOCHS * max(len(spectra) // _BATCH, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    network.train()
    for _ in range(steps):
        chosen = torch.randperm(len(spectra), generator=generator)[:_BATCH]
        answers = network(_disturbed(spectra[chosen], generator))
        losses = [
            F.cross_entropy(answer, wanted[chosen, head], label_smoothing=_LABEL_SMOOTHING)
            for head, answer in enumerate(answers)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    network.eval()


def _disturbed(
    spectra: Float[Tensor, "batch bands time"], generator: torch.Generator
) -> Float[Tensor, "batch bands time"]:
    """Transposed, through a random equalizer, with a band of pitches hidden, begun elsewhere."""
    batch, bands, frames = spectra.shape
    shift = int(torch.randint(-_TRANSPOSITION_BANDS, _TRANSPOSITION_BANDS + 1, (), generator=generator))
    moved = spectra.roll(shift, dims=1)
    if shift > 0:
        moved[:, :shift] = spectra[:, :1]
    elif shift < 0:
        moved[:, shift:] = spectra[:, -1:]
    points = torch.randn(batch, 1, _COLOUR_POINTS, generator=generator) * _COLOUR_DB / _FLOOR_DB
    coloured = moved + F.interpolate(points, bands, mode="linear").transpose(1, 2)
    first = torch.randint(bands, (batch, 1), generator=generator)
    place = torch.arange(bands)[None]
    hidden = (place >= first) & (place < first + torch.randint(_HIDDEN_BANDS, (batch, 1), generator=generator))
    begun = int(torch.randint(frames, (), generator=generator))
    return coloured.masked_fill(hidden[:, :, None], -0.5).roll(begun, dims=2)


def _spectrogram(wave: Float[Tensor, "samples"]) -> Float[Tensor, "bands time"]:
    """Loudness of bands of equal musical steps: 0 is the loudest, -1 is 60 dB below it or less."""
    decibels = pitch_bands(wave, SAMPLE_HZ, _WINDOW, _HOP, _BANDS, _LOWEST_HZ, SAMPLE_HZ / 2)
    return (decibels - decibels.max()).clamp_min(-_FLOOR_DB) / _FLOOR_DB
