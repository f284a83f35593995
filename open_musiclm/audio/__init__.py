"""Sound files and waves: the only code that opens sound files.

Waves are mono float32 tensors [samples]; times are seconds, rates Hz. Sample counts are rounded and made
exact: 2.3 s at 24 kHz is 55,200 samples.
"""

from open_musiclm.audio.decoding import TOLERATED_SHORTFALL_SECONDS
from open_musiclm.audio.errors import SoundError
from open_musiclm.audio.finding import SOUND_EXTENSIONS, find_foreign_sounds, find_sounds
from open_musiclm.audio.info import SoundInfo, check_length, header_info
from open_musiclm.audio.leveling import leveled
from open_musiclm.audio.loudness import Levels, levels_of
from open_musiclm.audio.patching import Patch, crossfaded, write_patched
from open_musiclm.audio.reading import (
    count_frames,
    is_longer,
    read_samples,
    read_sound,
    read_window,
    sound_info,
    wave_statistics,
)
from open_musiclm.audio.resampling import resample, resampled, semantic_input
from open_musiclm.audio.tags import artist_of
from open_musiclm.audio.waves import (
    SILENCE_STANDARD_DEVIATION,
    Sound,
    WaveStatistics,
    fit_length,
    normalize,
    repeat_to,
    samples_of,
    statistics_of,
    to_int16_and_back,
    windows_of,
)
from open_musiclm.audio.writing import mp3_of, write_blocks, write_wave

__all__ = [
    "SILENCE_STANDARD_DEVIATION",
    "SOUND_EXTENSIONS",
    "TOLERATED_SHORTFALL_SECONDS",
    "Levels",
    "Patch",
    "Sound",
    "SoundError",
    "SoundInfo",
    "WaveStatistics",
    "artist_of",
    "check_length",
    "count_frames",
    "crossfaded",
    "find_foreign_sounds",
    "find_sounds",
    "fit_length",
    "header_info",
    "is_longer",
    "leveled",
    "levels_of",
    "mp3_of",
    "normalize",
    "read_samples",
    "read_sound",
    "read_window",
    "repeat_to",
    "resample",
    "resampled",
    "samples_of",
    "semantic_input",
    "sound_info",
    "statistics_of",
    "to_int16_and_back",
    "wave_statistics",
    "windows_of",
    "write_blocks",
    "write_patched",
    "write_wave",
]
