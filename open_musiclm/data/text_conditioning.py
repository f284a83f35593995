"""Text conditioning in training: a share of the examples has the CLAP tokens of a caption, not of its sound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.data.example_order import random_generator
from open_musiclm.data.failures import SoundFailure
from open_musiclm.data.sound_dataset import SoundBatch, SoundDataset, SoundExample, collate_sounds

_CAPTION = 2  # in place of an epoch, for its random choice


class CaptionChoice:
    """Which examples get a caption, and which: it depends on the seed and the example's index alone."""

    def __init__(self, share: float, seed: int) -> None:
        self.share, self.seed = share, seed

    def place(self, index: int, captions: int) -> int | None:
        """The number of example `index`'s caption, of `captions`; None if it gets none."""
        generator = random_generator(self.seed, index, _CAPTION)
        if not captions or generator.random() >= self.share:
            return None
        return int(generator.integers(captions))


@dataclass(frozen=True)
class TextConditionedBatch(SoundBatch):
    """A batch of waves, and of each example the caption that it gets, or None."""

    captions: list[str | None]

    def to(self, device: torch.device, non_blocking: bool = False) -> "TextConditionedBatch":
        """The same batch with its waves on a device."""
        moved = super().to(device, non_blocking)
        return TextConditionedBatch(moved.waves, moved.failures, self.captions)


@dataclass(frozen=True)
class TextConditionedExample:
    """The crops of a file, and its caption if it gets one."""

    waves: dict[str, Float[Tensor, "_"]]
    failures: list[SoundFailure]
    caption: str | None


class TextConditionedSounds(Dataset[TextConditionedExample]):
    """The examples of a dataset of sound, a share of them with a caption of their file."""

    def __init__(self, sounds: SoundDataset, captions: Mapping[Path, Sequence[str]], choice: CaptionChoice) -> None:
        self.sounds, self.captions, self.choice = sounds, captions, choice

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, index: int) -> TextConditionedExample:
        """Example `index`, which is the same crop as without captions. Raises UserError."""
        example = self.sounds[index]
        captions = self.captions.get(example.path, ())
        place = self.choice.place(index, len(captions))
        return TextConditionedExample(example.waves, example.failures, None if place is None else captions[place])


def collate_text_conditioned(examples: Sequence[TextConditionedExample]) -> TextConditionedBatch:
    """A batch of examples that have the same crops."""
    sounds = collate_sounds([SoundExample(example.waves, example.failures) for example in examples])
    return TextConditionedBatch(sounds.waves, sounds.failures, [example.caption for example in examples])
