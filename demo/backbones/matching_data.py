"""Spectrograms for instrument matching: clips as they are and through the codec, augmented."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from demo.corpus.corpus import Clip
from demo.token_corruption import corrupted
from open_musiclm.audio import Sound, fit_length, read_sound, repeat_to, resampled, samples_of
from open_musiclm.progress_bar import with_progress
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.training.backbones.spectrograms import Spectrograms

_CLEAN_SHARE = 25 / 64  # of the examples of a step; the others went through the codec
_CODED_SECONDS = (2.0, 4.0, 6.0, 8.0, 10.0)  # repeated to the length of CLAP's window
_LARGEST_CORRUPTED_SHARE = 0.3  # of the codec's tokens
_GAIN_DB, _SHIFTED_BANDS, _HIDDEN_BANDS = 6.0, 2, 7  # the largest of each
_EQUALIZED_SHARE = 0.75  # of the examples
_EQUALIZER_DB, _EQUALIZER_POINTS = 4.0, 6  # standard deviation; points of the curve along the bands

Spectrogram = Float[Tensor, "time mels"]


class MatchingData:
    """Batches of a corpus's clips; `coded` holds one spectrogram of each clip through the codec."""

    def __init__(
        self, folder: Path, clips: Sequence[Clip], spectrograms: Spectrograms, coded: Sequence[Spectrogram]
    ) -> None:
        self.folder, self.clips, self.spectrograms, self.coded = folder, clips, spectrograms, coded

    def batch(self, size: int, rng: random.Random) -> tuple[Float[Tensor, "batch time mels"], list[Clip]]:
        """Augmented spectrograms of `size` random clips, clean or coded, and these clips."""
        numbers = [rng.randrange(len(self.clips)) for _ in range(size)]
        clean = round(_CLEAN_SHARE * size)
        examples = [self._clean(number, rng) for number in numbers[:clean]]
        examples += [self.coded[number] for number in numbers[clean:]]
        return torch.stack([augment(example, rng) for example in examples]), [self.clips[number] for number in numbers]

    def _clean(self, number: int, rng: random.Random) -> Spectrogram:
        """A random part of a clip's own spectrogram, as long as CLAP's window."""
        whole, frames = self.spectrograms.of(self.folder / self.clips[number].file), self.spectrograms.frames
        first = rng.randrange(max(len(whole) - frames, 0) + 1)
        return whole[first : first + frames]


@torch.no_grad()
def coded_spectrograms(
    paths: Sequence[Path], codec: Codec, codebooks: Sequence[int], spectrograms: Spectrograms, rng: random.Random
) -> list[Spectrogram]:
    """The spectrogram, in half precision, of a random part of each file through the codec.

    Each is decoded from the first few codebooks, one of the numbers in `codebooks`, with some of the tokens corrupted
    for others of the same part.
    """
    found, token_rng = [], torch.Generator().manual_seed(rng.randrange(2**31))
    for path in with_progress(paths, len(paths), "through the codec", "files"):
        wave = resampled(read_sound(path), codec.sample_hz)
        length = samples_of(rng.choice(_CODED_SECONDS), codec.sample_hz)
        first = rng.randrange(max(len(wave) - length, 0) + 1)
        codes = codec.encode(fit_length(wave[first:], length)[None])[0]
        codes = codes[:, : rng.choice(codebooks)]
        codes = corrupted(codes, rng.random() * _LARGEST_CORRUPTED_SHARE, len(codes), token_rng)
        part = resampled(Sound(codec.decode(codes[None])[0], codec.sample_hz), spectrograms.sample_hz)
        found.append(spectrograms.mel.whole(repeat_to(part, spectrograms.mel.samples)[None])[0].half())
    return found


def augment(spectrogram: Spectrogram, rng: random.Random) -> Spectrogram:
    """Changes the level, rotates in time, transposes, hides some bands, and mostly equalizes."""
    changed = spectrogram.float().roll(rng.randrange(len(spectrogram)), 0) + rng.uniform(-_GAIN_DB, _GAIN_DB)
    bands = torch.arange(changed.shape[1]) - rng.randint(-_SHIFTED_BANDS, _SHIFTED_BANDS)
    changed = changed[:, bands.clamp(0, changed.shape[1] - 1)]
    hidden = rng.randint(0, _HIDDEN_BANDS)
    first = rng.randrange(changed.shape[1] - hidden + 1)
    changed[:, first : first + hidden] = changed.mean()
    return equalized(changed, rng) if rng.random() < _EQUALIZED_SHARE else changed


def equalized(spectrogram: Spectrogram, rng: random.Random) -> Spectrogram:
    """Adds a smooth random curve over the bands, and a tilt: soundfonts differ so, and few are at hand."""
    bands = spectrogram.shape[1]
    points = torch.tensor([rng.gauss(0, _EQUALIZER_DB) for _ in range(_EQUALIZER_POINTS)])
    curve = functional.interpolate(points[None, None], size=bands, mode="linear", align_corners=True)[0, 0]
    return spectrogram + curve + rng.gauss(0, _EQUALIZER_DB) * torch.linspace(-1, 1, bands)
