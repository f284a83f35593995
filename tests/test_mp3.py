"""mp3 files: a crop equals the same samples of the whole file, and lengths are exact with and without a length tag."""

import sqlite3
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_musiclm import audio
from open_musiclm.audio import SoundError
from open_musiclm.data.statistics import StatisticsCache

ROUNDING = 1e-6  # the decoder adds in another order after another beginning
ENCODINGS = {
    "constant 44.1 kHz stereo": (44100, 2, "CONSTANT", 0.5),
    "variable 44.1 kHz stereo": (44100, 2, "VARIABLE", 0.2),
    "low constant 44.1 kHz mono": (44100, 1, "CONSTANT", 0.9),
    "variable 22 kHz mono": (22050, 1, "VARIABLE", 0.5),
    "average 16 kHz stereo": (16000, 2, "AVERAGE", 0.5),
    "constant 8 kHz mono": (8000, 1, "CONSTANT", 0.5),
}
CONSTANT = [name for name in ENCODINGS if not name.startswith("variable")]
SECONDS = 6
COVER = b"ID3\4\0\0\0\0\1\0" + bytes(128)
LARGE_COVER = b"ID3\4\0\0\0\4\0\0" + bytes(4 << 14)
END_TAG = b"TAG" + bytes(125)


@cache
def _encoded(encoding: str, folder: Path) -> bytes:
    sample_hz, channels, mode, compression = ENCODINGS[encoding]
    generator, times = np.random.default_rng(0), np.arange(sample_hz) / sample_hz
    path = folder / "encoded.mp3"
    with soundfile.SoundFile(
        path, "w", sample_hz, channels, format="MP3", bitrate_mode=mode, compression_level=compression
    ) as file:
        for second in range(SECONDS):
            wave = 0.2 * np.sin(2 * np.pi * 220 * (second + 1) * times)[:, None] * np.ones(channels)
            loud = 0.1 * (second % 2) + 0.001  # so that a variable bitrate varies and the reservoir fills
            file.write(wave + loud * generator.standard_normal((sample_hz, channels)))
    return path.read_bytes()


def _without_tag(content: bytes) -> bytes:
    """The file without the frame that says how long it is."""
    return content[content.index(content[:2], 4) :]


def _assert_crops_are_parts_of_the_whole(path: Path) -> None:
    decoded, sample_hz = soundfile.read(path, dtype="float32", always_2d=True)
    whole = decoded.mean(axis=1)
    info = StatisticsCache().info(path)
    assert info.frames == len(whole)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def crops(data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(whole) - 1) | st.just(0) | st.just(len(whole) - 1))
        count = data.draw(st.integers(1, min(sample_hz, len(whole) - first)))
        found = audio.read_window(path, first, count, info).numpy()
        np.testing.assert_allclose(found, whole[first : first + count], rtol=0, atol=ROUNDING)

    crops()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_crop_is_that_of_the_whole_file(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "sound.mp3"
    path.write_bytes(COVER + _encoded(encoding, tmp_path) + END_TAG)
    assert not audio.header_info(path).estimated
    assert audio.sound_info(path).seconds == SECONDS
    _assert_crops_are_parts_of_the_whole(path)


@pytest.mark.parametrize("encoding", CONSTANT)
def test_a_file_without_a_length_tag_is_as_long_as_its_sound(tmp_path: Path, encoding: str) -> None:
    """libsndfile alone takes such a file's cover for seconds of sound."""
    path = tmp_path / "sound.mp3"
    path.write_bytes(LARGE_COVER + _without_tag(_encoded(encoding, tmp_path)) + END_TAG)
    assert audio.header_info(path).estimated
    assert SECONDS <= audio.header_info(path).seconds < SECONDS + 0.25
    whole = audio.read_sound(path)
    assert SECONDS <= whole.seconds < SECONDS + 0.25
    assert audio.wave_statistics(path).standard_deviation == pytest.approx(float(whole.wave.std()), rel=1e-4)
    _assert_crops_are_parts_of_the_whole(path)


def test_a_counted_length_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, file = tmp_path / "sound.mp3", tmp_path / "statistics.sqlite"
    content = _without_tag(_encoded("constant 8 kHz mono", tmp_path))
    path.write_bytes(content)
    info = StatisticsCache(file).info(path)
    with monkeypatch.context() as patch:
        patch.setattr("open_musiclm.data.statistics.count_frames", lambda path: pytest.fail("decoded again"))
        assert StatisticsCache(file).info(path) == info
    path.write_bytes(content[: len(content) // 2])
    assert StatisticsCache(file).info(path).seconds == pytest.approx(info.seconds / 2, abs=0.2)


def test_what_is_not_one_chain_of_frames_is_read(tmp_path: Path) -> None:
    content = _encoded("constant 44.1 kHz stereo", tmp_path)
    for number, odd in enumerate((content + b"junk" * 500, content[:40000] + b"junk" * 50 + content[40000:])):
        path = tmp_path / f"{number}.mp3"
        path.write_bytes(odd)
        assert audio.sound_info(path).seconds == SECONDS
        assert float(audio.read_samples(path, 1000, 5000).std()) > 0.1


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    content = _encoded("variable 22 kHz mono", tmp_path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SoundError, match="truncated"):
        StatisticsCache().of(path)


def test_a_cache_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It also held the places of an mp3's frames."""
    path, file = tmp_path / "sound.mp3", tmp_path / "statistics.sqlite"
    path.write_bytes(_encoded("constant 8 kHz mono", tmp_path))
    statistics = StatisticsCache(file).of(path)
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE counted_frames")
        connection.execute("CREATE TABLE mp3_frames (path BLOB PRIMARY KEY, size, modified_ns, frame_index BLOB)")
        connection.execute("UPDATE wave_statistics SET mean = 0.5")
    connection.close()
    assert StatisticsCache(file).of(path).mean == 0.5
    assert StatisticsCache(file).of(path).standard_deviation == statistics.standard_deviation
    assert StatisticsCache(file).info(path).seconds == SECONDS
