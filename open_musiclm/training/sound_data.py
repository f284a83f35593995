"""Training data from a folder of sound."""

from collections.abc import Sequence
from pathlib import Path

from open_musiclm.audio import SoundError, find_sounds, sound_info
from open_musiclm.config.augment import AugmentConfig
from open_musiclm.data.crops import Crop
from open_musiclm.data.failures import SoundFailure, as_sound_error
from open_musiclm.data.sound_dataset import SoundDataset, collate_sounds
from open_musiclm.data.split import split_folder
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
    augment: AugmentConfig | None = None,
) -> TrainingData:
    """Crops of the files below `folder`, some of them for validation (see `split_folder`), which are not changed.

    Validation files that cannot be opened are left out (`unusable` lists them). Raises UserError.
    """
    training, kept = split_folder(find_sounds(folder), folder, valid_frac, seed)
    unusable = [failure for path in kept if (failure := _failure(path)) is not None]
    validation = sorted(set(kept) - {failure.path for failure in unusable})
    return TrainingData(
        training=SoundDataset(training, crops, seed, statistics, augment),
        validation=SoundDataset(validation, crops, seed, statistics) if validation else None,
        validation_examples=len(validation),
        collate=collate_sounds,
        batch_size=batch_size,
        num_workers=num_workers,
        unusable=unusable,
    )


def _failure(path: Path) -> SoundFailure | None:
    """Why a file cannot be opened, if it cannot."""
    try:
        with as_sound_error(path):
            sound_info(path)
    except SoundError as error:
        return SoundFailure(path, str(error))
    return None
