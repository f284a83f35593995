"""Headers that lie about the length: what decodes is used, and every door to sound says the same length."""

import io
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from open_musiclm import audio
from open_musiclm.audio import SoundError
from open_musiclm.audio.containers import flac, mpeg
from open_musiclm.audio.containers.ogg import checksum, ogg_layout
from open_musiclm.audio.layout import PLAIN
from open_musiclm.data.check_files import check_file
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundDataset
from open_musiclm.data.statistics import StatisticsCache

HZ, SECONDS = 16000, 3
MP3_DELAY = 0.1  # seconds: an mp3 without a length tag has some silence at both ends
CROP = Crop("crop", 1.0, HZ, False)


@cache
def _encoded(name: str, subtype: str = "PCM_16", seed: int = 0, sample_hz: int = HZ, mode: str | None = None) -> bytes:
    """Three seconds of noise that differ, so that a place in them is known by its samples."""
    content, rng = io.BytesIO(), np.random.default_rng(seed)
    with soundfile.SoundFile(
        content, "w", sample_hz, 1, subtype, format=name, bitrate_mode=mode, compression_level=0.5 if mode else None
    ) as file:
        for second in range(SECONDS):
            # loud and quiet seconds, so that a variable bit rate varies
            file.write(rng.normal(0, (0.001, 0.2)[(second + seed) % 2], sample_hz))
    return content.getvalue()


def _mp3(mode: str = "CONSTANT", seed: int = 0, sample_hz: int = HZ) -> bytes:
    return _encoded("MP3", "MPEG_LAYER_III", seed, sample_hz, mode)


def _untagged(content: bytes) -> bytes:
    return content[content.index(content[:2], 4) :]


def _tag_at(content: bytes) -> int:
    """Where the length tag of an mp3 is: of a constant bit rate it is named Info."""
    return max(content.find(b"Xing"), content.find(b"Info"))


def _patched(content: bytes, place: int, value: int, width: int, order: str = "big") -> bytes:
    field = (value % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return content[:place] + field + content[place + width :]


def _assert_used(path: Path, seconds: float, tolerance: float = 0.0) -> np.ndarray:
    """All doors say that the file is so long; returns its samples."""
    info = audio.sound_info(path)
    assert info.seconds == pytest.approx(seconds, abs=tolerance)
    assert not info.estimated
    assert StatisticsCache().info(path) == info
    checked = check_file(path)
    assert checked.problem is None
    assert checked.seconds == info.seconds
    whole = audio.read_sound(path).wave.numpy()
    assert len(whole) == info.frames == audio.count_frames(path)
    for first in (0, info.frames // 3, info.frames // 2 - 500, info.frames - 1000):
        window = audio.read_window(path, first, 1000).numpy()
        np.testing.assert_allclose(window, whole[first : first + 1000], atol=1e-6)
    assert not SoundDataset([path], [CROP], seed=0)[0].failures
    return whole


def _write(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"sound.{suffix}"
    path.write_bytes(content)
    return path


FLAC_LENGTH_AT = 18


@pytest.mark.parametrize("promised", [0, 1, HZ, 40 * SECONDS * HZ, (1 << 36) - 1])
def test_a_flac_file_is_as_long_as_its_frames(tmp_path: Path, promised: int) -> None:
    content = _encoded("FLAC")
    bits = int.from_bytes(content[FLAC_LENGTH_AT : FLAC_LENGTH_AT + 8], "big") >> 36 << 36
    path = _write(tmp_path, "flac", _patched(content, FLAC_LENGTH_AT, bits | promised, 8))
    whole = _assert_used(path, SECONDS)
    path.write_bytes(content)
    np.testing.assert_array_equal(whole, audio.read_sound(path).wave.numpy())


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("frames", [0, 1, 40, (1 << 31) - 1])
def test_an_mp3_is_as_long_as_its_frames(tmp_path: Path, mode: str, frames: int) -> None:
    content = _mp3(mode)
    path = _write(tmp_path, "mp3", _patched(content, _tag_at(content) + 8, frames, 4))
    _assert_used(path, SECONDS, MP3_DELAY)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_length_tag_is_used_to_its_end(tmp_path: Path, mode: str) -> None:
    """By the bit rate of its first frame, one of a variable bit rate is shorter than it is."""
    _assert_used(_write(tmp_path, "mp3", _untagged(_mp3(mode, seed=1))), SECONDS, MP3_DELAY)


ODD_MP3 = {
    "from the middle of a frame": lambda content: content[1000:],
    "after junk": lambda content: np.random.default_rng(0).bytes(100_000) + content,
    "after zeros": lambda content: bytes(5000) + content,
    "after a tag": lambda content: b"ID3\4\0\0\0\4\0\0" + bytes(4 << 14) + content,
    "before a tag": lambda content: content + b"APETAGEX" + b"q" * 5000,
    "around junk": lambda content: content[:5000] + b"q" * 5000 + content[5000:],
    "around a tag": lambda content: content[:5000] + b"ID3\4\0\0\0\4\0\0" + bytes(4 << 14) + content[5000:],
}


@pytest.mark.parametrize("name", ODD_MP3)
def test_an_mp3_with_something_else_in_it(tmp_path: Path, name: str) -> None:
    _assert_used(_write(tmp_path, "mp3", ODD_MP3[name](_mp3())), SECONDS, 0.15)


@pytest.mark.parametrize(("share", "is_named"), [(0.5, True), (0.05, False)])
def test_an_mp3_that_lacks_its_end(tmp_path: Path, share: float, is_named: bool) -> None:
    """Half of it is an error, for its header says what is missing; one that promises so much more is wrong."""
    content = _mp3()
    path = _write(tmp_path, "mp3", content[: int(len(content) * share)])
    assert ("truncated" in (check_file(path).problem or "")) == is_named


JOINED = {
    "ogg": (_encoded("OGG", "VORBIS"), _encoded("OGG", "VORBIS", 1)),
    "opus": (_encoded("OGG", "OPUS"), _encoded("OGG", "OPUS", 1)),
    "mp3": (_mp3("VARIABLE"), _mp3("CONSTANT", 1)),
    "flac": (_encoded("FLAC"), _encoded("FLAC", seed=1)),
    "wav": (_encoded("WAV"), _encoded("WAV", "PCM_24", 1)),
    "rf64": (_encoded("RF64"), _encoded("WAV", seed=1)),
    "aiff": (_encoded("AIFF"), _encoded("AIFF", seed=1)),
    "w64": (_encoded("W64"), _encoded("W64", seed=1)),
    "caf": (_encoded("CAF"), _encoded("CAF", seed=1)),
    "au": (_encoded("AU", "FLOAT"), _encoded("AU", seed=1)),
}


@pytest.mark.parametrize("suffix", JOINED)
@pytest.mark.parametrize("order", [(0, 1), (0, 0), (1, 0, 1)])
def test_all_parts_of_joined_files_are_used(tmp_path: Path, suffix: str, order: tuple[int, ...]) -> None:
    own = [audio.read_sound(_write(tmp_path, suffix, part)).wave.numpy() for part in JOINED[suffix]]
    whole = _assert_used(
        _write(tmp_path, suffix, b"".join(JOINED[suffix][part] for part in order)), len(order) * SECONDS
    )
    np.testing.assert_allclose(whole, np.concatenate([own[part] for part in order]), atol=1e-6)


def test_joined_mp3_without_length_tags(tmp_path: Path) -> None:
    content = _untagged(_mp3()) + b"ID3\4\0\0\0\4\0\0" + bytes(4 << 14) + _untagged(_mp3(seed=1))
    _assert_used(_write(tmp_path, "mp3", content), 2 * SECONDS, 2 * MP3_DELAY)


TAG = b"ID3\4\0\0\0\0\0\x10" + bytes(16)
BETWEEN = {
    "wav": (TAG, b"LIST" + (5).to_bytes(4, "little") + b"INFOx\0", b"id3 " + (26).to_bytes(4, "little") + TAG),
    "flac": (TAG, b"TAG" + bytes(125)),
}


@pytest.mark.parametrize(("suffix", "between"), [(suffix, some) for suffix in BETWEEN for some in BETWEEN[suffix]])
def test_joined_files_with_tags_between_them(tmp_path: Path, suffix: str, between: bytes) -> None:
    _assert_used(_write(tmp_path, suffix, between.join(JOINED[suffix])), 2 * SECONDS)


@pytest.mark.parametrize("seconds", [(20, 20), (20, 13), (1, 40), (40, 1), (11, 11, 11)])
def test_joined_flac_too_long_to_be_read_whole(tmp_path: Path, seconds: tuple[int, ...]) -> None:
    """Of equal lengths, too: the last frame is then the one that the first header promises."""
    rng, parts, content = np.random.default_rng(0), [], b""
    for length in seconds:
        parts.append(rng.integers(-(1 << 15), 1 << 15, length * 32000, "int16", endpoint=False))
        encoded = io.BytesIO()
        soundfile.write(encoded, parts[-1], 32000, format="FLAC")
        content += encoded.getvalue()
    path = _write(tmp_path, "flac", content)
    assert path.stat().st_size > 1 << 21
    whole = _assert_used(path, sum(seconds))
    np.testing.assert_array_equal(whole * (1 << 15), np.concatenate(parts))


def test_a_long_flac_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, np.random.default_rng(0).integers(-(1 << 15), 1 << 15, 60 * 48000, "int16"), 48000)
    searched: list[object] = []
    monkeypatch.setattr(flac, "_markers", lambda *arguments: searched.append(arguments))
    with path.open("rb") as file:
        assert flac.flac_layout(file, path.stat().st_size) == PLAIN
    assert not searched


def test_more_joined_files_than_anybody_joins(tmp_path: Path) -> None:
    one = io.BytesIO()
    soundfile.write(one, np.zeros(4), HZ, format="WAV")
    with pytest.raises(SoundError, match="more than 10,000 files joined into one, which is too much to read; split"):
        audio.sound_info(_write(tmp_path, "wav", one.getvalue() * 10_001))


@pytest.mark.parametrize(
    ("suffix", "content", "problem"),
    [
        ("flac", b"fLaC\0\0\0\x22" * 20_000, "10,000 files joined into one"),
        ("ogg", b"OggS\0\2".ljust(26, b"\0") + b"\0" + b"OggS\0".ljust(27, b"\0"), "10,000 files joined into one"),
        ("mp3", _mp3() + b"\xff\xfb\x90\0" * 120_000, "100,000 places that look like frames and are none"),
    ],
)
def test_files_that_cost_more_than_they_hold(tmp_path: Path, suffix: str, content: bytes, problem: str) -> None:
    path = _write(tmp_path, suffix, content * (10_001 if suffix == "ogg" else 1))
    with pytest.raises(SoundError, match=problem):
        audio.sound_info(path)


def test_pages_of_ogg_take_no_memory(tmp_path: Path) -> None:
    first, page = b"OggS\0\2".ljust(26, b"\0") + b"\1\x08OpusHead", b"OggS\0".ljust(27, b"\0")
    path = _write(tmp_path, "ogg", first + page * 20_000)
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            assert ogg_layout(file, path.stat().st_size) == PLAIN
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_bytes_that_begin_no_frame_are_passed_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    search = mpeg._next_sync
    monkeypatch.setattr(mpeg, "_next_sync", lambda file, start: searches.append(start) or search(file, start))
    frames = audio.sound_info(_write(tmp_path, "mp3", _mp3())).frames
    assert audio.sound_info(_write(tmp_path, "mp3", _mp3() + b"\xff" * 3_000_000)).frames == frames
    assert len(searches) < 100


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac", "wav"])
def test_joined_files_of_different_rates_are_named(tmp_path: Path, suffix: str) -> None:
    name, subtype = {"ogg": ("OGG", "VORBIS"), "flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16")}.get(
        suffix, ("", "")
    )
    other = _mp3(sample_hz=22050) if suffix == "mp3" else _encoded(name, subtype, 0, 22050)
    path = _write(tmp_path, suffix, JOINED[suffix][0] + other)
    with pytest.raises(SoundError, match=r"2 joined files of different sample rates \(16000, 22050 Hz\); split it"):
        audio.sound_info(path)
    assert "split it" in (check_file(path).problem or "")


def _with_granule(content: bytes, granule: int) -> bytes:
    """An Ogg file whose last page says that so many samples end with it."""
    last = content.rindex(b"OggS")
    page = _patched(_patched(content[last:], 6, granule, 8, "little"), 22, 0, 4)
    return content[:last] + _patched(page, 22, checksum(page), 4, "little")


def test_each_of_joined_files_may_lack_some_samples(tmp_path: Path) -> None:
    short = _with_granule(JOINED["ogg"][0], SECONDS * HZ + 1200)  # of the 1,600 that are tolerated
    path = _write(tmp_path, "ogg", short + short)
    assert check_file(path).problem is None
    info = audio.sound_info(path)
    assert info.frames == len(audio.read_sound(path).wave) == 2 * (SECONDS * HZ + 1200)


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
@pytest.mark.parametrize("granule", [0, 1000, 10**9, (1 << 62)])
def test_the_last_page_of_ogg_is_not_trusted(tmp_path: Path, suffix: str, granule: int) -> None:
    path = _write(tmp_path, suffix, _with_granule(JOINED[suffix][0], granule))
    _assert_used(path, SECONDS, 0.02)


# where the number of bytes is, counted from its chunk's name, its width and order, and what it counts beside samples
SIZES = {
    "wav": ("WAV", b"data", 4, 4, "little", 0),
    "aiff": ("AIFF", b"SSND", 4, 4, "big", 8),
    "au": ("AU", b".snd", 8, 4, "big", 0),
    "caf": ("CAF", b"data", 4, 8, "big", 4),
    "w64": ("W64", b"data", 16, 8, "little", 24),
    "rf64": ("RF64", b"ds64", 16, 8, "little", 0),
}


@pytest.mark.parametrize("suffix", SIZES)
@pytest.mark.parametrize("promised", [0, 2, 5000, 60000, 10**7, (1 << 31) - 1, -1])
def test_the_size_of_the_samples_is_not_trusted(tmp_path: Path, suffix: str, promised: int) -> None:
    name, chunk, offset, width, order, more = SIZES[suffix]
    content = _encoded(name)
    place = content.index(chunk) + offset
    assert int.from_bytes(content[place : place + width], order) == 2 * SECONDS * HZ + more  # type: ignore[arg-type]
    whole = _assert_used(_write(tmp_path, suffix, _patched(content, place, promised, width, order)), SECONDS)
    np.testing.assert_array_equal(whole, audio.read_sound(_write(tmp_path, suffix, content)).wave.numpy())


@pytest.mark.parametrize(
    "after", [b"LIST" + (5000).to_bytes(4, "little") + b"q" * 5000, bytes(70_000), b"TAG" + bytes(125)]
)
def test_what_follows_the_samples_is_no_sound(tmp_path: Path, after: bytes) -> None:
    _assert_used(_write(tmp_path, "wav", _encoded("WAV") + after), SECONDS)


def test_a_crop_of_a_measured_file_decodes_no_more_than_the_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = _encoded("FLAC")
    bits = int.from_bytes(content[FLAC_LENGTH_AT : FLAC_LENGTH_AT + 8], "big") >> 36 << 36
    path = _write(tmp_path, "flac", _patched(content, FLAC_LENGTH_AT, bits, 8))
    info, decoded = audio.sound_info(path), []
    read = soundfile.SoundFile.read

    def counted(*arguments: object, **options: object) -> np.ndarray:
        block = read(*arguments, **options)  # type: ignore[arg-type]
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    audio.read_window(path, HZ, 1000, info)
    assert sum(decoded) == 1000


def test_a_plain_file_is_opened_as_it_is(tmp_path: Path) -> None:
    """Nothing is measured where the header is right."""
    for suffix, content in {"mp3": _mp3("VARIABLE"), "flac": _encoded("FLAC"), "wav": _encoded("WAV")}.items():
        assert not audio.header_info(_write(tmp_path, suffix, content)).estimated
        assert audio.header_info(tmp_path / f"sound.{suffix}").seconds == SECONDS
