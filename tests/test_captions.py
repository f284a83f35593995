"""Captions as users write them: read right, or refused with the file and the number of the line."""

import contextlib
import json
from pathlib import Path

import pytest
from helpers.sound_files import write_tone
from helpers.wrong_files import WRONG_VALUES, json_with

from open_musiclm.audio import find_sounds
from open_musiclm.data.captions import CaptionedSound, captions_of, read_captions, sidecar_captions
from open_musiclm.errors import UserError
from open_musiclm.evaluation.clips import find_clips


def written(folder: Path, *lines: object) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize(
    ("entry", "captions"),
    [
        ({"caption": "slow"}, ("slow",)),
        ({"captions": ["slow", "calm"]}, ("slow", "calm")),
        ({"captions": "slow sad tone"}, ("slow sad tone",)),
        ({"caption": "slow", "captions": None}, ("slow",)),
        ({"caption": "slow", "captions": []}, ("slow",)),
        ({"caption": "slow", "captions": ["slow", " ", "calm"]}, ("slow", "calm")),
        ({"caption": ["slow", "calm"]}, ("slow", "calm")),
        ({"captions": ["calm", "sad"], "caption": "slow"}, ("slow", "calm", "sad")),
        ({"caption": "slow\u2028and sad"}, ("slow\u2028and sad",)),
        ({"caption": "slow", "bpm": 60, "captions": None, "tags": [1, None]}, ("slow",)),
    ],
)
def test_every_way_to_write_captions(tmp_path: Path, entry: dict, captions: tuple[str, ...]) -> None:
    path = written(tmp_path, {"file": "a.wav", **entry})
    assert read_captions(path) == [CaptionedSound(tmp_path / "a.wav", captions)]
    path.write_text(json.dumps({"file": "a.wav", **entry}, ensure_ascii=False))
    assert read_captions(path) == [CaptionedSound(tmp_path / "a.wav", captions)]


@pytest.mark.parametrize("key", ["caption", "captions", "file"])
@pytest.mark.parametrize("value", WRONG_VALUES)
def test_any_json_is_read_or_refused(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_bytes(json_with({"file": "0.wav", "caption": "slow tone"}, (key,), value))
    with contextlib.suppress(UserError):
        assert all(isinstance(caption, str) for sound in read_captions(path) for caption in sound.captions)


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"file": "a.wav", "caption": "slow"}\r\n\r\n{"file": "b.wav", "caption": "fast"}\r\n'
    )
    assert [sound.captions for sound in read_captions(path)] == [("slow",), ("fast",)]


def test_lines_of_the_same_file_add_to_each_other(tmp_path: Path) -> None:
    lines = [{"file": "a.wav", "caption": text} for text in ("slow", "calm", "slow")]
    assert read_captions(written(tmp_path, *lines)) == [CaptionedSound(tmp_path / "a.wav", ("slow", "calm"))]


def test_captions_in_a_linked_folder_are_found(tmp_path: Path) -> None:
    album, music = tmp_path / "elsewhere" / "album", tmp_path / "music"
    music.mkdir()
    album.mkdir(parents=True)
    write_tone(album / "a.wav", 0.5, 8000)
    written(album, {"file": "a.wav", "caption": "slow"})
    (music / "album").symlink_to(album)
    assert captions_of(find_sounds(music), music) == {music / "album" / "a.wav": ("slow",)}
    assert [clip.prompt for clip in find_clips(music)] == ["slow"]


def test_an_absolute_path_is_itself(tmp_path: Path) -> None:
    path = written(tmp_path, {"file": "/data/music/ok.wav", "caption": "slow tone"})
    assert read_captions(path)[0].path == Path("/data/music/ok.wav")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not valid JSON"),
        ("7", "expected"),
        ("null", "expected"),
        ('["a.wav", "slow"]', "expected"),
        ('{"caption": "slow"}', '"file"'),
        ('{"file": null, "caption": "slow"}', '"file"'),
        ('{"file": "", "caption": "slow"}', '"file"'),
        ('{"file": ["a.wav"], "caption": "slow"}', '"file"'),
        (r'{"file": "a\u0000.wav", "caption": "slow"}', '"file"'),
        ('{"file": "a.wav"}', '"caption"'),
        ('{"file": "a.wav", "caption": " "}', '"caption"'),
        ('{"file": "a.wav", "caption": 7}', "texts, found 7"),
        ('{"file": "a.wav", "captions": 7}', "texts, found 7"),
        ('{"file": "a.wav", "captions": ["slow", 7]}', "texts, found 7"),
        ('{"file": "a.wav", "captions": ["slow", null]}', "texts, found None"),
        ('{"file": "a.wav", "captions": {"en": "slow"}}', "texts, found"),
        (r'{"file": "a.wav", "caption": "\ud800"}', "half of a surrogate pair"),
        ('{"file": "a.wav", "file": "b.wav", "caption": "slow"}', "'file' occurs twice"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = written(tmp_path, {"file": "a.wav", "caption": "slow"}, "", line)
    with pytest.raises(UserError) as refused:
        read_captions(path)
    assert str(refused.value).startswith(f"{path}:3: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "more",
    [
        {"variation_of": "song.wav", "first_stage": "coarse"},
        {"infilling_of": "song.wav", "regenerated_seconds": [3, 5]},
        {"continuation_of": "song.wav", "given_seconds": 2.5},
        {"parts": [{"text": "slow"}, {"audio": "song.wav"}]},
        {"story": [{"seconds": 0, "parts": [{"text": "slow"}]}], "crossfade": 1.0},
    ],
)
def test_the_name_of_an_edit_or_a_mixture_is_no_caption(tmp_path: Path, more: dict) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "song.wav", "seed": 0}))
    assert sidecar_captions(tmp_path / "a.wav") == ["song.wav"]
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "song.wav", "seed": 0, **more}))
    assert sidecar_captions(tmp_path / "a.wav") == []


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_no_captions(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "captions.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="holds no captions"):
        read_captions(tmp_path / "captions.jsonl")
