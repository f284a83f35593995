"""Level and tempo of a sound as measures."""

import importlib.util
import math
from collections.abc import Sequence

import numpy as np
import torch

from open_musiclm.audio import FileSound, Sound, levels_of, read_channels, resampled
from open_musiclm.errors import UserError
from open_musiclm.evaluation.measure import Measured, identity_of
from open_musiclm.metrics.levels import clipped_share, silent_share

_BLOCK_SAMPLES = 1 << 20
_TEMPO_HZ = 22050  # librosa's own rate


class LevelMeasure:
    """`level`: shares of clipped and of silent sound, loudness in LUFS (NaN for silence), RMS, length in seconds.

    Loudness and RMS are of all channels of the file, clipping is of the channel with most of it, silence of their mean.
    """

    name = "levels"
    identity = identity_of("levels 2")
    batch = 1
    finite = False
    CLIPPED, SILENT, LOUDNESS, RMS, SECONDS = range(5)

    def measure(self, sounds: Sequence[FileSound]) -> list[Measured]:
        """See the class. Raises SoundError."""
        return [{"level": self._level(sound)} for sound in sounds]

    def _level(self, sound: FileSound) -> torch.Tensor:
        channels = read_channels(sound.path, 0, len(sound.wave))
        levels = levels_of(channels.split(_BLOCK_SAMPLES, dim=1), sound.sample_hz)
        loudness = levels.loudness if math.isfinite(levels.loudness) else math.nan
        silent = silent_share(sound.wave, sound.sample_hz)
        clipped = max(clipped_share(channel) for channel in channels)
        return torch.tensor([[clipped, silent, loudness, levels.rms, sound.seconds]])


class TempoMeasure:
    """`bpm`: librosa's estimate of the tempo (Ellis 2007), NaN if it finds none.

    Raises UserError if librosa is not installed.
    """

    name = "tempo, librosa"
    batch = 1
    finite = False

    def __init__(self) -> None:
        if importlib.util.find_spec("librosa") is None:
            raise UserError("--metrics tempo: librosa is not installed; pip install 'open_musiclm[evaluate]'")
        self.identity = identity_of("tempo 1, librosa")

    def measure(self, sounds: Sequence[Sound]) -> list[Measured]:
        """See the class."""
        import librosa

        measured: list[Measured] = []
        for sound in sounds:
            wave = resampled(sound, _TEMPO_HZ).numpy()
            tempo, _ = librosa.beat.beat_track(y=wave, sr=_TEMPO_HZ)
            bpm = float(np.ravel(tempo)[0])
            measured.append({"bpm": torch.tensor([[bpm if bpm > 0 else math.nan]])})
        return measured
