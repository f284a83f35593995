"""JSON of users and foreign directories: what is read, and what is refused with one line that names the file."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from helpers.paths import REPOSITORY

from open_musiclm.config import load_generation_config, load_model_config
from open_musiclm.config.json_files import (
    LARGEST_FILE,
    MOST_DIGITS,
    MOST_LEVELS,
    parse_json,
    read_json,
    read_json_lines,
    read_json_object,
    section_from_content,
)
from open_musiclm.data.prepare.manifest import SourceLine
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.spectral_codec import SpectralArchitecture

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SMALL = REPOSITORY / "configs/model/musiclm_small.json"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    config = tmp_path / "model.json"
    config.write_bytes(BYTE_ORDER_MARK + SMALL.read_bytes())
    assert load_model_config(config).model_dump() == load_model_config(SMALL).model_dump()
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(BYTE_ORDER_MARK + b'{"a": 1}\r\n\n[2]')
    assert list(read_json_lines(lines)) == [(f"{lines}:1", {"a": 1}), (f"{lines}:3", [2])]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str) -> None:
    path, value = tmp_path / "lines.jsonl", f"slow{separator}tone"
    control = ord(separator) < 32  # which JSON writes as an escape
    path.write_text(json.dumps([value], ensure_ascii=control) + "\n", encoding="utf-8")
    assert [content for _, content in read_json_lines(path)] == [[value]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
        ("NaN", "'NaN' is not finite"),
        ('{"a": -Infinity}', "'-Infinity' is not finite"),
        ("[1e999]", "'1e999' is not finite"),
        ("1" * 5000, f"an integer of 5000 digits; at most {MOST_DIGITS}"),
        (f"[{'1' * (MOST_DIGITS + 1)}]", f"at most {MOST_DIGITS}"),
        (r'{"\ud800": 1}', "half of a surrogate pair"),
        (r'["slow \udfff tone"]', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * (MOST_LEVELS + 2) + "]" * (MOST_LEVELS + 2), "nested too deeply"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested too deeply"),
        ("", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": 1} x', "not valid JSON"),
        ('"two\nlines"', "not valid JSON"),
    ],
)
def test_what_no_config_needs_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as refused:
        parse_json(text, "a.json")
    assert str(refused.value).startswith("a.json: ")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_transformers_writes_is_read() -> None:
    """tokenizer_config.json has 10 ** 30 where it means "no limit"; a pair of surrogates is one character."""
    assert parse_json(f'{{"model_max_length": {10**30}}}', "") == {"model_max_length": 10**30}
    assert parse_json(r'"\ud83c\udfb5"', "") == "\N{MUSICAL NOTE}"
    deep = "[" * (MOST_LEVELS - 1) + "]" * (MOST_LEVELS - 1)
    assert parse_json(deep, "") == json.loads(deep)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # sparse


MAKERS = {
    "nothing": lambda path: None,
    "folder": Path.mkdir,
    "pipe": _pipe,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "too_large": _too_large,
    "utf16": lambda path: path.write_text("{}", encoding="utf-16"),
    "latin1": lambda path: path.write_bytes(b'{"a": "h\xf6hle"}'),
    "list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("read", [read_json_object, load_model_config, load_generation_config])
def test_what_is_no_json_file_is_named(tmp_path: Path, kind: str, read) -> None:
    path = tmp_path / "a.json"
    MAKERS[kind](path)
    if kind == "folder" and read is load_generation_config:
        return  # a folder is asked for the file in it
    with pytest.raises(UserError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a\0.json", "\ud800.json"])
def test_what_is_no_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"not the path of a file|cannot read"):
        read_json(tmp_path / name)


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with path.open("wb") as file:
        file.write(b"[1]\n")
        file.truncate(1 << 30)  # sparse: a line of zeros
    lines = read_json_lines(path)
    assert next(lines)[1] == [1]
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}:2: longer than 1 MiB"):
        next(lines)


def test_errors_stay_short_and_printable(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({f"key {n}\n\x1b[2J": "x" * 100 for n in range(5000)}))
    with pytest.raises(UserError, match=r"and 5001 more$") as refused:
        load_model_config(path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 3000
    path.write_text(json.dumps({**json.loads(SMALL.read_text()), "fine_cfg": list(range(100_000))}))
    with pytest.raises(UserError, match="fine_cfg") as refused:
        load_model_config(path)
    assert len(str(refused.value)) < 300


def test_an_unknown_key_in_a_list_of_sections_is_named() -> None:
    clip = {"file": "a.flac", "start_seconds": 0.0, "seconds": 1.0}
    source = {"source": "a.mp3", "result": "written", "group": "a", "clips": [clip, {**clip, "second": 1.0}]}
    with pytest.raises(UserError, match=r"^m: clips: 1: second: unknown key; known here: file, .*_seconds$"):
        section_from_content(source, "m", SourceLine)
    architecture = SpectralArchitecture().model_dump()
    architecture["resolutions"][0]["bandz"] = 1
    with pytest.raises(UserError, match=r"resolutions: 0: bandz: unknown key; known here: bands_per_octave, .*window"):
        section_from_content(architecture, "config.json", SpectralArchitecture)


def test_a_recursion_limit_of_the_caller_does_not_matter() -> None:
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(10_000)
        with pytest.raises(UserError, match="nested too deeply"):
            parse_json("[" * 5_000 + "]" * 5_000, "a.json")
    finally:
        sys.setrecursionlimit(limit)
