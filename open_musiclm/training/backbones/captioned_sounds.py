"""Sound with captions as an endless training stream and as a fixed validation set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.data.captions import CaptionedSound
from open_musiclm.data.example_order import ExampleOrder, random_generator, rotated
from open_musiclm.data.failures import SoundFailure, first_usable
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.errors import UserError
from open_musiclm.training.backbones.spectrograms import Spectrograms


@dataclass(frozen=True)
class CaptionedExample:
    """The spectrogram of a crop, a caption of it, and the files that failed before."""

    spectrogram: Float[Tensor, "time mels"]
    caption: str
    failures: list[SoundFailure]


@dataclass(frozen=True)
class CaptionedBatch(SoundBatch):
    """Spectrograms in place of waves, and a caption of each."""

    spectrograms: Float[Tensor, "batch 1 time mels"]
    captions: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> "CaptionedBatch":
        """The same batch with its spectrograms on a device."""
        moved = self.spectrograms.to(device, non_blocking=non_blocking)
        return CaptionedBatch(self.waves, self.failures, moved, self.captions)


class CaptionedSounds(Dataset[CaptionedExample]):
    """Example `index` of the stream is one file of epoch index // files in a random order, a random crop of it and one
    of its captions; with `random_crops` false the files in order, their beginnings and their first captions.

    The next file in that order replaces one that fails.
    """

    def __init__(
        self, sounds: Sequence[CaptionedSound], spectrograms: Spectrograms, seed: int, random_crops: bool
    ) -> None:
        if not sounds:
            raise UserError("no captioned sound is left to train on; give more, or a smaller valid_frac")
        self.captions = {sound.path: sound.captions for sound in sounds}
        self.paths = list(self.captions)
        self.spectrograms, self.seed = spectrograms, seed
        self.random_crops = random_crops
        self._order = ExampleOrder(len(self.paths), seed)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> CaptionedExample:
        """The crop and caption of example `index`. Raises UserError if no file can be read."""
        items = self._order.candidates(index) if self.random_crops else rotated(len(self.paths), index)
        example, failures = first_usable(
            (self.paths[item] for item in items), lambda path: self._example(path, index), Path
        )
        return replace(example, failures=failures)

    def _example(self, path: Path, index: int) -> CaptionedExample:
        whole, frames = self.spectrograms.of(path), self.spectrograms.frames
        generator = random_generator(self.seed, index, 1)
        captions = self.captions[path]
        first = int(generator.integers(len(whole) - frames + 1)) if self.random_crops else 0
        caption = int(generator.integers(len(captions))) if self.random_crops else 0
        return CaptionedExample(whole[first : first + frames].float(), captions[caption], [])


def collate_captioned(examples: Sequence[CaptionedExample]) -> CaptionedBatch:
    """A batch of examples of equal length."""
    failures = [failure for example in examples for failure in example.failures]
    spectrograms = torch.stack([example.spectrogram for example in examples])[:, None]
    return CaptionedBatch({}, failures, spectrograms, [example.caption for example in examples])
