"""Training data from a folder of sound."""

from collections.abc import Sequence
from pathlib import Path

from open_musiclm.audio import SoundError, find_sounds, sound_info
from open_musiclm.config import TrainerConfig
from open_musiclm.config.augment import AugmentConfig
from open_musiclm.data.crops import Crop
from open_musiclm.data.failures import SoundFailure, as_sound_error
from open_musiclm.data.sound_dataset import SoundDataset, collate_sounds
from open_musiclm.data.split import split_folder
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.unreadable_sounds import print_unreadable
from open_musiclm.training.data_stream import TrainingData


def sound_data(
    config: TrainerConfig, crops: Sequence[Crop], statistics: StatisticsCache, augment: AugmentConfig | None = None
) -> TrainingData:
    """Crops of the files in the config's folder, some of them for validation (see `split_folder`), which stay as they
    are.

    Validation files that cannot be opened are left out (`unusable` lists them). Raises UserError.
    """
    folder = Path(config.folder)
    training, kept = split_folder(find_sounds(folder), folder, config.valid_frac, config.seed)
    print_unreadable(folder)
    unusable = [failure for path in kept if (failure := _failure(path)) is not None]
    validation = sorted(set(kept) - {failure.path for failure in unusable})
    return TrainingData(
        training=SoundDataset(training, crops, config.seed, statistics, augment),
        validation=SoundDataset(validation, crops, config.seed, statistics) if validation else None,
        validation_examples=len(validation),
        collate=collate_sounds,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
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
