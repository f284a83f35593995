"""Training data out of a folder of sound."""

from collections.abc import Sequence
from pathlib import Path

from open_musiclm.audio import SoundError, find_sounds, sound_info
from open_musiclm.data.sound_dataset import Crop, SoundDataset, collate_sounds, split
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.training.data_stream import TrainingData


def sound_data(
    folder: Path,
    crops: Sequence[Crop],
    batch_size: int,
    num_workers: int,
    valid_frac: float,
    seed: int,
    statistics: StatisticsCache,
) -> TrainingData:
    """Crops of the files below `folder`, a share of `valid_frac` of the files kept for validation.

    Files of that share that cannot be opened are left out, so that a small share is not lost to one of them.
    Raises UserError.
    """
    training, validation = split(find_sounds(folder), valid_frac, seed)
    validation = [path for path in validation if _opens(path)]
    return TrainingData(
        training=SoundDataset(training, crops, seed, statistics),
        validation=SoundDataset(validation, crops, seed, statistics) if validation else None,
        validation_examples=len(validation),
        collate=collate_sounds,
        batch_size=batch_size,
        num_workers=num_workers,
    )


def _opens(path: Path) -> bool:
    try:
        sound_info(path)
    except SoundError:
        return False
    return True
