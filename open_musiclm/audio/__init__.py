"""Sound files and waves: the only code that opens sound files.

Waves are mono float32 tensors [samples]; times are seconds, rates Hz. Sample counts are rounded and made
exact: 2.3 s at 24 kHz is 55,200 samples.
"""

from open_musiclm.audio.decoding import TOLERATED_SHORTFALL_SECONDS
from open_musiclm.audio.finding import find_named, find_sounds, find_unreadable_sounds
from open_musiclm.audio.info import SoundInfo, artist_of, check_length, header_info
from open_musiclm.audio.leveling import AROUND_SECONDS, leveled
from open_musiclm.audio.loudness import levels_of
from open_musiclm.audio.patching import Patch, crossfaded, write_patched
from open_musiclm.audio.reading import (
    count_frames,
    is_longer,
    read_channels,
    read_samples,
    read_sound,
    read_window,
    sound_info,
    wave_statistics,
)
from open_musiclm.audio.resampling import resample, resampled, semantic_input
from open_musiclm.audio.waves import (
    SILENCE_STANDARD_DEVIATION,
    FileSound,
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
from open_musiclm.errors import SoundError
