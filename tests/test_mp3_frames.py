"""A crop of an mp3 through its frame index equals the same samples of the whole file, decoded from its beginning."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_musiclm import audio
from open_musiclm.audio import SoundError
from open_musiclm.audio.mp3_frames import FrameIndex, index_frames
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
SECONDS = 6


@cache
def _encoded(sample_hz: int, channels: int, mode: str, compression: float, folder: Path) -> bytes:
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
    second_frame = content.index(content[:2], 4)
    while index_frames(content[second_frame:], 0) is None:
        second_frame = content.index(content[:2], second_frame + 1)
    return content[second_frame:]


@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_crop_is_that_of_the_whole_file(tmp_path: Path, encoding: str, tagged: bool) -> None:
    content = _encoded(*ENCODINGS[encoding], tmp_path)
    path = tmp_path / "sound.mp3"
    path.write_bytes(
        b"ID3\4\0\0\0\0\1\0" + bytes(128) + (content if tagged else _without_tag(content)) + b"TAG" + bytes(125)
    )
    info = StatisticsCache().info(path)
    assert info.frame_index is not None
    decoded, sample_hz = soundfile.read(path, dtype="float32", always_2d=True)
    whole = decoded.mean(axis=1)
    if tagged:
        assert info.frames == len(whole) == SECONDS * sample_hz

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def crops(data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(whole) - 1) | st.just(0) | st.just(len(whole) - 1))
        count = data.draw(st.integers(1, min(sample_hz, len(whole) - first)))
        found = audio.read_samples(path, first, count, info).numpy()
        np.testing.assert_allclose(found, whole[first : first + count], rtol=0, atol=ROUNDING)

    crops()


def test_the_exact_length_of_a_file_without_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    path.write_bytes(_without_tag(_encoded(*ENCODINGS["variable 44.1 kHz stereo"], tmp_path)))
    whole = audio.read_sound(path)
    assert SECONDS <= whole.seconds < SECONDS + 0.1
    assert audio.wave_statistics(path).standard_deviation == pytest.approx(float(whole.wave.std()), rel=1e-4)


def test_the_index_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, file = tmp_path / "sound.mp3", tmp_path / "statistics.sqlite"
    content = _encoded(*ENCODINGS["variable 22 kHz mono"], tmp_path)
    path.write_bytes(content)
    info = StatisticsCache(file).info(path)
    with monkeypatch.context() as patch:
        patch.setattr("open_musiclm.data.statistics.find_frames", lambda path: pytest.fail("walked again"))
        assert StatisticsCache(file).info(path).frames == info.frames
    expected = audio.read_samples(path, 5000, 8000)
    path.write_bytes(b"ID3\4\0\0\0\0\0\7" + bytes(7) + content)
    assert (audio.read_samples(path, 5000, 8000, info) - expected).abs().max() < ROUNDING  # by an index out of date
    fresh = StatisticsCache(file).info(path)
    assert fresh.frame_index is not None
    assert fresh.frame_index.anchors[0] == info.frame_index.anchors[0] + 17


@pytest.mark.parametrize("broken", [b"x", b"\0" * 36, b"\xff" * 44])
def test_a_broken_index_is_made_again(tmp_path: Path, broken: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sound.mp3"
    path.write_bytes(_encoded(*ENCODINGS["constant 8 kHz mono"], tmp_path))
    assert FrameIndex.from_bytes(broken) is None
    cache = StatisticsCache(tmp_path / "statistics.sqlite")
    with monkeypatch.context() as patch:
        patch.setattr(FrameIndex, "to_bytes", lambda self: broken)
        cache.info(path)
    assert cache.info(path).frame_index is not None
    with monkeypatch.context() as patch:
        patch.setattr("open_musiclm.data.statistics.find_frames", lambda path: pytest.fail("walked again"))
        assert cache.info(path).frame_index is not None


def test_what_is_not_one_chain_of_frames_is_read_as_before(tmp_path: Path) -> None:
    content = _encoded(*ENCODINGS["constant 44.1 kHz stereo"], tmp_path)
    other = _encoded(*ENCODINGS["constant 8 kHz mono"], tmp_path)
    for number, odd in enumerate(
        (content + b"junk" * 500, content[:40000] + b"junk" * 50 + content[40000:], content + other)
    ):
        path = tmp_path / f"{number}.mp3"
        path.write_bytes(odd)
        info = StatisticsCache().info(path)
        assert info.frame_index is None
        assert (audio.read_samples(path, 1000, 5000, info) == audio.read_samples(path, 1000, 5000)).all()


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    content = _encoded(*ENCODINGS["variable 22 kHz mono"], tmp_path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SoundError, match="truncated"):
        StatisticsCache().of(path)


def test_the_decoder_has_nothing_to_say(tmp_path: Path) -> None:
    for name, encoding in ENCODINGS.items():
        (tmp_path / f"{name}.mp3").write_bytes(_encoded(*encoding, tmp_path))
    (tmp_path / "encoded.mp3").unlink()
    script = """
import sys
from pathlib import Path
from open_musiclm import audio
from open_musiclm.data.statistics import StatisticsCache
for path in sorted(Path(sys.argv[1]).glob("*.mp3")):
    info = StatisticsCache().info(path)
    assert info.frame_index is not None
    for first in range(0, info.frames - 2000, 3001):
        audio.read_samples(path, first, 2000, info)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert done.stderr == ""
