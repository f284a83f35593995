"""Sound with captions as an endless training stream and as a fixed validation set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.audio import SoundError, read_window, sound_info
from open_musiclm.data.draw_sampler import DrawOrder, random_generator
from open_musiclm.data.sound_dataset import Crop, SoundBatch, SoundFailure, cut, nested_starts
from open_musiclm.errors import UserError
from open_musiclm.training.backbones.clap_text import CaptionedSound

CROP = "clap"


@dataclass(frozen=True)
class CaptionedExample:
    """A crop and one sentence that describes it, and the files that failed on the way."""

    wave: Float[Tensor, "samples"]
    caption: str
    failures: list[SoundFailure]


@dataclass(frozen=True)
class CaptionedBatch(SoundBatch):
    """Waves under the name `clap`, and a caption of each."""

    captions: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> "CaptionedBatch":
        """The same batch with its waves on a device."""
        moved = super().to(device, non_blocking)
        return CaptionedBatch(moved.waves, moved.failures, self.captions)


class CaptionedSounds(Dataset[CaptionedExample]):
    """Example `draw` of the stream is one file of epoch draw // files in a random order, a random crop of it and one
    of its captions; with `random_crops` false the files in order, their beginnings and their first captions."""

    def __init__(
        self, sounds: Sequence[CaptionedSound], seconds: float, sample_hz: int, seed: int, random_crops: bool
    ) -> None:
        if not sounds:
            raise UserError("no captioned sound is left to train on; give more, or a smaller valid_frac")
        self.sounds, self.seed, self.random_crops = list(sounds), seed, random_crops
        self.crop = Crop(CROP, seconds, sample_hz, normalized=False)
        self._order = DrawOrder(len(self.sounds), seed)

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, draw: int) -> CaptionedExample:
        failures: list[SoundFailure] = []
        for attempt in range(len(self.sounds)):
            sound = self._sound(draw, attempt)
            try:
                return self._example(sound, random_generator(self.seed, draw, 1), failures)
            except SoundError as error:
                failures.append(SoundFailure(sound.path, str(error)))
        raise UserError(f"none of the {len(self.sounds)} captioned sounds can be used; the first: {failures[0].reason}")

    def _sound(self, draw: int, attempt: int) -> CaptionedSound:
        """The sound of a draw; after failures the next ones of the same epoch, round about."""
        epoch, place = divmod(draw, len(self.sounds))
        place = (place + attempt) % len(self.sounds)
        return self.sounds[self._order.index(epoch * len(self.sounds) + place) if self.random_crops else place]

    def _example(
        self, sound: CaptionedSound, generator: np.random.Generator, failures: list[SoundFailure]
    ) -> CaptionedExample:
        info = sound_info(sound.path)
        span = math.ceil(round(self.crop.seconds * info.sample_hz, 6))
        first = nested_starts([info.frames, span], generator)[0] if self.random_crops else 0
        caption = int(generator.integers(len(sound.captions))) if self.random_crops else 0
        wave = cut(read_window(sound.path, first, span), info.sample_hz, self.crop, None)
        return CaptionedExample(wave, sound.captions[caption], failures)


def collate_captioned(examples: Sequence[CaptionedExample]) -> CaptionedBatch:
    """A batch of examples of equal length."""
    failures = [failure for example in examples for failure in example.failures]
    waves = torch.stack([example.wave for example in examples])
    return CaptionedBatch({CROP: waves}, failures, [example.caption for example in examples])
