"""Reading, resampling and writing sound: sample counts, positions in time, and every bad file."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.sound_files import BAD, ODD, write_tone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_musiclm import audio
from open_musiclm.audio import Sound, SoundError
from open_musiclm.errors import UserError

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000, 22254])
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _noise(path: Path, frames: int, sample_hz: int = 16000, channels: int = 1) -> np.ndarray:
    wave = np.random.default_rng(frames).uniform(-0.5, 0.5, (frames, channels)).astype("float32")
    soundfile.write(path, wave, sample_hz, subtype="FLOAT" if path.suffix == ".wav" else None)
    return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)


@FEW
@given(frames=st.integers(1, 5000), first=st.integers(0, 4999), wanted=st.integers(1, 9000), channels=st.integers(1, 3))
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_window_is_a_slice_of_the_whole_and_repeats_up_to_its_length(
    tmp_path: Path, suffix: str, frames: int, first: int, wanted: int, channels: int
) -> None:
    path = tmp_path / f"noise{suffix}"
    whole = _noise(path, frames, channels=channels)
    first %= frames
    window = audio.read_window(path, first, wanted).numpy()
    expected = np.resize(whole[first : first + wanted], wanted)
    np.testing.assert_allclose(window, expected, atol=1e-7)


@FEW
@given(frames=st.integers(1, 30000), from_hz=RATES, to_hz=RATES)
def test_resampled_lengths_are_those_of_the_seconds(frames: int, from_hz: int, to_hz: int) -> None:
    wave = audio.resampled(Sound(torch.zeros(frames), from_hz), to_hz)
    assert wave.shape[0] == round(frames / from_hz * to_hz)


@FEW
@given(from_hz=RATES, to_hz=st.sampled_from([16000, 24000, 48000]), hz=st.floats(50, 1500))
def test_resampling_keeps_positions_in_time(from_hz: int, to_hz: int, hz: float) -> None:
    wave = torch.from_numpy(np.sin(2 * np.pi * hz * np.arange(from_hz // 2) / from_hz).astype("float32"))
    found = audio.resample(wave, from_hz, to_hz).numpy()
    expected = np.sin(2 * np.pi * hz * np.arange(len(found)) / to_hz)
    inner = slice(to_hz // 50, -to_hz // 50)  # the ends contain the silence around the wave
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.02)


@FEW
@given(seconds=st.decimals(0, 500, places=3), hz=st.sampled_from([16000, 24000, 48000]))
def test_sample_counts_are_exact(seconds: object, hz: int) -> None:
    assert audio.samples_of(float(str(seconds)), hz) == int(str(seconds).replace(".", "")) * hz // 1000


UNSEEKABLE = [
    ("WAV", "GSM610"), ("AIFF", "GSM610"), ("WAV", "G721_32"), ("AU", "G723_24"), ("WAV", "NMS_ADPCM_16"),
    ("XI", "DPCM_16"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "encoding"), UNSEEKABLE)
def test_encodings_in_which_nothing_can_seek_are_read_from_anywhere(
    tmp_path: Path, container: str, encoding: str
) -> None:
    path = tmp_path / f"tone.{container.lower()}"
    soundfile.write(path, np.sin(np.arange(12000) / 7) / 2, 8000, format=container, subtype=encoding)
    whole = audio.read_sound(path).wave
    assert len(whole) == audio.sound_info(path).frames >= 12000
    for start, frames in ((1, 100), (5000, 3000), (len(whole) - 700, 700)):
        assert torch.equal(audio.read_samples(path, start, frames), whole[start : start + frames])


def test_statistics_of_a_file_are_those_of_its_wave(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    whole = _noise(path, 1_200_000, channels=2)  # more than one block
    statistics = audio.wave_statistics(path)
    assert statistics.mean == pytest.approx(whole.mean(dtype="float64"), abs=1e-7)
    assert statistics.standard_deviation == pytest.approx(whole.std(dtype="float64", ddof=1), rel=1e-6)
    in_memory = audio.statistics_of(torch.from_numpy(whole))
    assert in_memory.standard_deviation == pytest.approx(statistics.standard_deviation, rel=1e-6)
    normal = audio.normalize(torch.from_numpy(whole), statistics)
    assert float(normal.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.std()) == pytest.approx(1, abs=1e-4)


def test_semantic_input_is_normalised_over_the_whole_and_resampled() -> None:
    wave = 0.1 * torch.sin(torch.arange(24000) * 0.05) + 0.3
    found = audio.semantic_input(Sound(wave, 24000), 16000)
    expected = audio.resampled(Sound((wave - wave.mean()) / wave.std(), 24000), 16000)
    assert found.shape == (16000,)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@FEW
@given(samples=st.integers(1, 50), window=st.integers(1, 60))
def test_windows_cover_a_wave_and_the_last_begins_earlier(samples: int, window: int) -> None:
    windows = audio.windows_of(torch.arange(float(samples)), window)
    assert {len(part) for part in windows} == {min(samples, window)}
    assert [int(part[0]) for part in windows[:-1]] == list(range(0, samples - window, window))
    assert int(windows[-1][-1]) == samples - 1
    batch = audio.windows_of(torch.arange(float(samples)).expand(2, -1), window)
    assert all(torch.equal(part[1], whole) for part, whole in zip(batch, windows, strict=True))


@FEW
@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=50))
def test_the_int16_round_trip(values: list[float]) -> None:
    wave = torch.tensor(values)
    once = audio.to_int16_and_back(wave)
    assert float((once - wave.clamp(-1, 1)).abs().max()) <= 1 / 32767
    assert torch.equal(torch.round(once * 32767) / 32767, once)
    assert bool((once.abs() <= wave.abs() + 1e-6).all())  # towards zero


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    write, message = BAD[name]
    path = write(tmp_path / name)
    with pytest.raises(SoundError, match=message) as caught:
        audio.wave_statistics(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "mine.wav", 1.0)
    path.chmod(0)
    with pytest.raises(SoundError, match="cannot read: Permission denied"):
        audio.sound_info(path)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    path.write_bytes(write_tone(tmp_path / "cafe.wav", 1.0).read_bytes())
    with pytest.raises(SoundError, match="not valid Unicode"):
        audio.read_samples(path)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_read(tmp_path: Path, name: str) -> None:
    path = ODD[name](tmp_path / name)
    info = audio.sound_info(path)
    window = audio.read_window(path, info.frames // 2, info.sample_hz)
    assert window.shape == (info.sample_hz,)
    assert float(window.std()) > 1e-4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_damaged_file_is_an_error_or_sound(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    path = tmp_path / f"damaged{suffix}"
    content = bytearray(write_tone(path, 0.5).read_bytes())
    for position in data.draw(st.lists(st.integers(0, 200), max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        wave = audio.read_window(path, 0, 4000)
        statistics = audio.wave_statistics(path)
    except SoundError:
        return
    assert wave.shape == (4000,)
    assert bool(wave.isfinite().all())
    assert np.isfinite(statistics.standard_deviation)


def test_sounds_are_found_in_any_case_sorted_and_below(tmp_path: Path) -> None:
    names = ["b/2.WAV", "a/1.Flac", "a/b/3.mp3", "0.ogg"]
    for name in [*names, "cover.jpg", "wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert audio.find_sounds(tmp_path) == sorted(tmp_path / name for name in names)


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_without_sound(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"no sound file|no such folder"):
        audio.find_sounds(tmp_path / name)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_written_wave_comes_back(tmp_path: Path, suffix: str) -> None:
    wave = torch.linspace(-1.5, 1.5, 24001)
    audio.write_wave(tmp_path / f"wave{suffix}", wave, 24000)
    sound = audio.read_sound(tmp_path / f"wave{suffix}")
    assert sound.sample_hz == 24000
    torch.testing.assert_close(sound.wave, wave.clamp(-1, 1), atol=2 / 32768, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == [f"wave{suffix}"]
