"""Sound files to whole-second crops for the tokenizers: the work of preprocessing's data workers."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.audio import SoundError, SoundInfo
from open_musiclm.config import DataPreprocessorConfig, ModelConfig
from open_musiclm.data.augmentation import SoundChange, changed_window
from open_musiclm.data.crops import TOKENIZER_KINDS, TokenizerKind, cut, tokenizer_crop
from open_musiclm.data.example_order import random_generator
from open_musiclm.data.failures import SoundFailure, as_sound_error
from open_musiclm.data.split import indices_by_split_folder
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.store_description import shortest_seconds


@dataclass(frozen=True)
class SoundCrop:
    """A whole-second crop of a file: one wave for each tokenizer, at its rate."""

    path: str
    start_seconds: int
    seconds: int
    waves: dict[TokenizerKind, Float[Tensor, "_"]]


@dataclass(frozen=True)
class PreparedFile:
    """The crops of a file, or why there are none."""

    crops: list[SoundCrop]
    failure: SoundFailure | None = None

    def pin_memory(self) -> "PreparedFile":
        """The same with its waves in pinned memory: a GPU copies from there while it computes."""
        pinned = [
            replace(crop, waves={kind: wave.pin_memory() for kind, wave in crop.waves.items()}) for crop in self.crops
        ]
        return replace(self, crops=pinned)


class CropPreparation(Dataset[PreparedFile]):
    """Reads the crops of each file. Runs in data workers.

    Of files in a folder `valid` beside `train` one version is read, unchanged: the validation is of real sound.
    """

    def __init__(
        self, paths: Sequence[Path], config: ModelConfig, settings: DataPreprocessorConfig, statistics: StatisticsCache
    ) -> None:
        self.paths = paths
        self.folder = Path(settings.folder)
        self.settings = settings
        self.statistics = statistics
        self.config = config
        self.shortest = shortest_seconds(config)
        names = [stored_name(path, self.folder) for path in paths]
        divided = indices_by_split_folder(names)
        self._unchanged = frozenset(names[place] for place in divided[1]) if divided else frozenset()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PreparedFile:
        """The crops of a file, or its failure."""
        path = self.paths[index]
        try:
            with as_sound_error(path):
                info = self.statistics.info(path)
                name = stored_name(path, self.folder)
                places = self._places(name, info)
                versions = range(1 if name in self._unchanged else self.settings.repeat)
                return PreparedFile([self._crop(path, name, info, *place, v) for place in places for v in versions])
        except SoundError as error:
            return PreparedFile([], SoundFailure(path, str(error)))

    def _places(self, name: str, info: SoundInfo) -> list[tuple[int, int]]:
        """Starts and lengths in whole seconds; they depend on the seed and the file's name and length alone."""
        length = max(int(min(info.seconds, self.settings.max_audio_length_seconds)), self.shortest)
        last = max(int(info.seconds) - length, 0)
        if self.settings.random_crop:
            generator = random_generator(self.settings.seed, _number_of(name))
            starts = generator.choice(last + 1, size=min(self.settings.num_crops, last + 1), replace=False).tolist()
        else:
            starts = [*range(0, last, length), last][: self.settings.num_crops]  # the last one ends with the file
        return [(start, length) for start in sorted(starts)]

    def _crop(self, path: Path, name: str, info: SoundInfo, start: int, seconds: int, version: int) -> SoundCrop:
        change = self._change(name, start, version)
        window = changed_window(path, start * info.sample_hz, seconds * info.sample_hz, info, change)
        statistics = change.statistics(self.statistics.of(path))
        waves = {
            kind: cut(window, info.sample_hz, tokenizer_crop(kind, seconds, self.config), statistics)
            for kind in TOKENIZER_KINDS
        }
        return SoundCrop(name, start, seconds, waves)

    def _change(self, name: str, start: int, version: int) -> SoundChange:
        """What is changed about a version of a crop: it depends on the seed, the file's name and the place alone."""
        if self.settings.augment is None or name in self._unchanged:
            return SoundChange()
        generator = random_generator(self.settings.seed, _number_of(name), start, version)
        return SoundChange.draw(self.settings.augment, generator)


def _number_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def stored_name(path: Path, folder: Path) -> str:
    """The path of a sound file below the folder of sound, as the store holds it."""
    return Path(os.path.relpath(path, folder)).as_posix()
