"""Labelled sounds as users have them: JSON lines, tables, FMA's metadata; tags as probes take them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from open_musiclm.analysis.labels import LabelledSound, read_labels
from open_musiclm.analysis.tag_tables import groups_of
from open_musiclm.analysis.tags import usable_tags
from open_musiclm.errors import UserError


def written(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_json_lines_of_the_demo_corpus(tmp_path: Path) -> None:
    line = {"file": "a.flac", "caption": "slow harp", "captions": ["slow harp", "calm harp"], "instruments": ["harp"],
            "bpm": 60, "mode": "major", "nothing": None, "nested": {"a": 1}}  # fmt: skip
    written(tmp_path / "captions.jsonl", line, {"file": "a.flac", "caption": "harp", "mode": "minor"})
    (sound,) = read_labels(tmp_path, None)
    assert sound == LabelledSound(
        tmp_path / "a.flac",
        ("slow harp", "calm harp", "harp"),
        {"instruments": ("harp",), "bpm": ("60",), "mode": ("major", "minor")},
    )


def test_a_table(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text('\ufefffile,caption,mood,bpm\n"a, b.wav","slow; sad",calm; sad,60\nc.wav,,,\n', encoding="utf-8")
    first, second = read_labels(tmp_path, labels)
    assert first.path == tmp_path / "a, b.wav"
    assert first.captions == ("slow; sad",)
    assert first.tags == {"mood": ("calm", "sad"), "bpm": ("60",)}
    assert (second.captions, second.tags) == ((), {})


def test_the_metadata_of_fma(tmp_path: Path) -> None:
    columns = [("", ""), ("artist", "id"), ("set", "split"), ("track", "genre_top"), ("track", "language_code")]
    with (tmp_path / "tracks.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerows([[group for group, _ in columns], [name for _, name in columns], ["track_id", "", "", "", ""]])
        lines.writerows(
            [["2", "1", "training", "Hip-Hop", "en"], ["3", "1", "test", "", ""], ["9", "4", "", "Rock", ""]]
        )
    folder = tmp_path / "fma" / "000"
    folder.mkdir(parents=True)
    for name in ("000002.mp3", "000003.mp3", "cover.mp3"):
        (folder / name).write_bytes(b"")
    first, second = read_labels(tmp_path / "fma", tmp_path / "tracks.csv")
    assert first.path == folder / "000002.mp3"
    assert first.captions == ("hip-hop music",)
    assert first.tags["track genre_top"] == ("Hip-Hop",)
    assert first.tags["artist id"] == second.tags["artist id"] == ("1",)
    assert second.captions == ()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("captions.jsonl", "{", "captions.jsonl:1: not valid JSON"),
        ("captions.jsonl", "[1]", "captions.jsonl:1: expected"),
        ("captions.jsonl", '{"caption": "slow"}', '"file": expected'),
        ("captions.jsonl", "", "describes no sound"),
        ("labels.csv", "name,mood\na,b\n", "expected a column named file"),
        ("labels.csv", "", "expected a column named file"),
        ("labels.csv", "file\n\udcff\n", "not a table of UTF-8"),
        ("labels.txt", "a.wav slow", "expected JSON lines"),
        ("tracks.csv", "a,b\n", "not FMA's tracks.csv"),
        (None, "", "name a file of captions or tags with --labels"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, name: str | None, content: str, told: str) -> None:
    if name is not None:
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    (tmp_path / "1.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"^.*$") as error:
        read_labels(tmp_path, None if name is None else tmp_path / name)
    assert told in str(error.value)


def sounds_with(**tags: list) -> list[LabelledSound]:
    count = max(len(values) for values in tags.values())
    return [
        LabelledSound(
            Path(f"{number}.wav"),
            (),
            {name: tuple(map(str, values[number])) for name, values in tags.items() if values[number]},
        )
        for number in range(count)
    ]


def test_categories_numbers_and_what_cannot_be_probed() -> None:
    sounds = sounds_with(
        mode=[["major"]] * 10 + [["minor"]] * 8 + [["dorian"]] * 2,
        bpm=[[60 + number] for number in range(20)],
        instruments=[["harp"], ["harp", "flute"]] * 6 + [["flute"]] * 7 + [[]],
        seed=[[0]] * 20,
        title=[[f"song {number}"] for number in range(20)],
    )
    tags, refused = usable_tags(sounds, None)
    mode, bpm, instruments = tags
    assert [tag.name for tag in tags] == ["mode", "bpm", "instruments"]
    assert list(mode.members) == list(range(18))  # dorian is too rare
    assert not mode.is_number
    assert bpm.is_number
    assert bpm.values[3] == 63.0
    assert list(instruments.members) == [0, 2, 4, 6, 8, 10, *range(12, 19)]
    assert set(refused) == {"seed", "title"}


@pytest.mark.parametrize("name", ["artist id", "track_id", "ID"])
def test_numbers_that_are_names_are_categories(name: str) -> None:
    usual = usable_tags(sounds_with(**{name: [[number // 5] for number in range(80)]}), None)[0]
    assert [(tag.name, tag.is_number, len(tag.members)) for tag in usual] == [(name, False, 80)]
    rare = sounds_with(**{name: [[number] for number in range(80)]})
    assert usable_tags(rare, None) == ([], {name: "fewer than two of its values occur in 5 sounds"})


def test_a_tag_of_two_values_and_an_unknown_one() -> None:
    sounds = sounds_with(tempo=[["slow"]] * 10 + [["fast"]] * 10, mode=[["major"], ["minor"]] * 10)
    ((tag,), _) = usable_tags(sounds, ["tempo+mode"])
    assert np.unique(tag.values, return_counts=True)[1].tolist() == [5, 5, 5, 5]
    with pytest.raises(UserError, match="--tags tempo\\+genre: no sound has 'genre'; there are 'tempo', 'mode'"):
        usable_tags(sounds, ["tempo+genre"])


def test_sounds_that_share_a_value_are_one_group() -> None:
    sounds = sounds_with(artist=[["a"], ["a", "b"], ["b"], ["c"], [], [], ["b", "c"], ["d"]])
    assert list(groups_of(sounds, "artist")) == [0, 0, 0, 0, 1, 2, 0, 3]
    assert list(groups_of(sounds, None)) == list(range(8))
