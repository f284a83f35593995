"""Sound with captions as an endless training stream and as a fixed validation set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.audio import SoundError
from open_musiclm.data.draw_sampler import DrawOrder, random_generator
from open_musiclm.data.sound_dataset import SoundBatch, SoundFailure
from open_musiclm.errors import UserError
from open_musiclm.training.backbones.clap_text import CaptionedSound
from open_musiclm.training.backbones.spectrograms import Spectrograms


@dataclass(frozen=True)
class CaptionedExample:
    """A crop's spectrogram, a caption of it, and the files that failed on the way."""

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
    """Example i of the stream is one file of epoch i // files in a random order, a random crop of it and one of its
    captions; with `random_crops` false the files in order, their beginnings and their first captions."""

    def __init__(
        self, sounds: Sequence[CaptionedSound], spectrograms: Spectrograms, seed: int, random_crops: bool
    ) -> None:
        if not sounds:
            raise UserError("no captioned sound is left to train on; give more, or a smaller valid_frac")
        self.sounds, self.spectrograms, self.seed = list(sounds), spectrograms, seed
        self.random_crops = random_crops
        self._order = DrawOrder(len(self.sounds), seed)

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, index: int) -> CaptionedExample:
        failures: list[SoundFailure] = []
        for attempt in range(len(self.sounds)):
            sound = self._sound(index, attempt)
            try:
                return self._example(sound, index, failures)
            except SoundError as error:
                failures.append(SoundFailure(sound.path, str(error)))
        raise UserError(f"none of the {len(self.sounds)} captioned sounds can be used; the first: {failures[0].reason}")

    def _sound(self, index: int, attempt: int) -> CaptionedSound:
        """The sound of an example; after failures the next ones of the same epoch, round about."""
        epoch, place = divmod(index, len(self.sounds))
        place = (place + attempt) % len(self.sounds)
        return self.sounds[self._order.index(epoch * len(self.sounds) + place) if self.random_crops else place]

    def _example(self, sound: CaptionedSound, index: int, failures: list[SoundFailure]) -> CaptionedExample:
        whole, frames = self.spectrograms.of(sound.path), self.spectrograms.frames
        rng = random_generator(self.seed, index, 1)
        first = int(rng.integers(len(whole) - frames + 1)) if self.random_crops else 0
        caption = int(rng.integers(len(sound.captions))) if self.random_crops else 0
        return CaptionedExample(whole[first : first + frames].float(), sound.captions[caption], failures)


def collate_captioned(examples: Sequence[CaptionedExample]) -> CaptionedBatch:
    """A batch of examples of equal length."""
    failures = [failure for example in examples for failure in example.failures]
    spectrograms = torch.stack([example.spectrogram for example in examples])[:, None]
    return CaptionedBatch({}, failures, spectrograms, [example.caption for example in examples])
