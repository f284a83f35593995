"""A token store that was damaged or edited: no example is made of it, and one line names the file and the remedy."""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.small_tokens import SIZE, description, time_config, time_row

from open_musiclm.data.shards import Shard, find_shards
from open_musiclm.data.token_dataset import TokenDataset, split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.errors import UserError

CONFIG = time_config()
REMEDY = "remove this file and preprocess again"
COLUMNS = ["path", "start_seconds", "seconds", "clap", "semantic", "coarse", "fine"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with TokenStoreWriter(tmp_path, description(CONFIG)) as writer:
        writer.add([time_row(CONFIG, 4, f"{number}.wav", first=number) for number in range(3)])
    return tmp_path


def shard_of(store: Path) -> Path:
    (path,) = store.glob("tokens-*.arrow")
    return path


def rewrite(store: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """Changes the table of the store's shard; the file keeps its name."""
    path = shard_of(store)
    with pa.OSFile(str(path), "rb") as file:
        table = change(pa.ipc.open_stream(file).read_all())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return path


def with_column(name: str, values: Any, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    """A table whose column `name` holds `values`, or what they make of the column's own ones."""

    def change(table: pa.Table) -> pa.Table:
        column = table.column(name)
        content = values(column.to_pylist()) if callable(values) else values
        return table.set_column(table.column_names.index(name), name, pa.array(content, kind or column.type))

    return change


def read_everything(store: Path) -> None:
    """What training does: the split, then examples of every row."""
    opened = TokenStore(store, CONFIG)
    split_rows(opened, 0.0, seed=0)
    for stage in ("semantic", "coarse", "fine"):
        dataset = TokenDataset(opened, range(len(opened)), stage, CONFIG, seed=0)
        for index in range(30):
            dataset[index]


def refused(store: Path) -> str:
    with pytest.raises(UserError) as error:
        read_everything(store)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


LISTS: dict[str, Callable[[list], list]] = {
    "short": lambda rows: [rows[0], rows[1][:-1], rows[2]],
    "long": lambda rows: [rows[0], rows[1] + rows[1][:1], rows[2]],
    "empty": lambda rows: [rows[0], [], rows[2]],
    "null row": lambda rows: [rows[0], None, rows[2]],
    "null id": lambda rows: [rows[0], [None, *rows[1][1:]], rows[2]],
    "beyond the codebook": lambda rows: [[SIZE] * len(row) for row in rows],
    "end ids": lambda rows: [[65535] * len(row) for row in rows],
}


@pytest.mark.parametrize("change", LISTS)
@pytest.mark.parametrize("name", ["clap", "semantic", "coarse", "fine"])
def test_lists_that_do_not_fit_are_refused(store: Path, name: str, change: str) -> None:
    path = rewrite(store, with_column(name, LISTS[change]))
    message = refused(store)
    assert message.startswith(f"{path}: ")
    assert name in message
    assert REMEDY in message


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 0.0, 1.0, 3.0, 5.0, 1e18, 1e308, None])
def test_seconds_that_make_no_sense_are_refused(store: Path, seconds: float | None) -> None:
    rewrite(store, with_column("seconds", [4.0, seconds, 4.0]))
    assert REMEDY in refused(store)


@pytest.mark.parametrize("start", [float("nan"), float("-inf"), -1.0, 1e18, None])
def test_starts_that_make_no_sense_are_refused(store: Path, start: float | None) -> None:
    rewrite(store, with_column("start_seconds", [0.0, start, 2.0]))
    assert "start_seconds" in refused(store)


@pytest.mark.parametrize(
    "change",
    [
        with_column("path", [None, "b", "c"]),
        with_column("path", [b"a", b"b", b"c"], pa.binary()),
        with_column("path", [1, 2, 3], pa.int64()),
        with_column("seconds", [4, 4, 4], pa.int64()),
        with_column("seconds", ["4", "4", "4"], pa.string()),
        with_column("semantic", lambda rows: [[float(one) for one in row] for row in rows], pa.list_(pa.float32())),
        with_column("semantic", lambda rows: [[-one for one in row] for row in rows], pa.list_(pa.int64())),
        with_column("coarse", lambda rows: [[row] for row in rows], pa.list_(pa.list_(pa.uint16()))),
        with_column("coarse", lambda rows: [str(row) for row in rows], pa.string()),
        lambda table: table.drop_columns(["fine"]),
        lambda table: table.append_column("notes", pa.array(["a", "b", "c"])),
        lambda table: table.rename_columns([*COLUMNS[:-1], "coarse"]),
        lambda table: pa.table({}),
        lambda table: table.slice(0, 2),
        lambda table: pa.concat_tables([table, table]),
    ],
)
def test_columns_of_another_kind_are_refused(store: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = rewrite(store, change)
    message = refused(store)
    assert message.startswith(f"{path}: ")
    assert REMEDY in message


def test_columns_in_another_order_or_in_parts_are_the_same(store: Path) -> None:
    before = [TokenStore(store, CONFIG)[row] for row in range(3)]
    rewrite(store, lambda table: pa.concat_tables([table.slice(0, 1), table.slice(1)]).select(COLUMNS[::-1]))
    for row, expected in enumerate(before):
        assert np.array_equal(TokenStore(store, CONFIG)[row].fine, expected.fine)


def test_mutated_bytes_end_no_process(store: Path) -> None:
    """Some mutations change tokens to others within the codebook; all others are refused."""
    path, rng = shard_of(store), np.random.default_rng(0)
    content, outcomes = path.read_bytes(), []
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 8))):
            place = int(rng.integers(min(2000, len(content)) if rng.random() < 0.7 else len(content)))
            damaged[place] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        with suppress(UserError):
            read_everything(store)
            outcomes.append("read")
    assert len(outcomes) < 250


@pytest.mark.parametrize("rows", ["9" * 30, str(1 << 40)])
def test_a_name_with_more_rows_than_there_can_be(store: Path, rows: str) -> None:
    path = store / f"tokens-00000-000007-{rows}.arrow"
    path.touch()
    assert str(path) in refused(store)


def test_the_millionth_shard_is_found(tmp_path: Path) -> None:
    (tmp_path / "tokens-00000-1000000-3.arrow").touch()
    assert find_shards(tmp_path) == [Shard(tmp_path / "tokens-00000-1000000-3.arrow", 0, 1000000, 3)]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_no_shard(store: Path, make: Callable[[Path], None]) -> None:
    path = shard_of(store)
    path.unlink()
    make(path)
    assert f"{path}: cannot read: no regular file" in refused(store)


def edited(store: Path, **keys: object) -> None:
    path = store / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"format_version": 2}, "format_version 2"),
        ({"format_version": None}, "format_version None"),
        ({"format_version": [1]}, r"format_version \[1\]"),
        ({"model_config": None}, "model_config: Input should be"),
        ({"model_config": {}}, "model_config: global_cfg: missing"),
        ({"model_config": "x" * 100_000}, "model_config: Input should be"),
        ({"fingerprints": None}, "fingerprints: expected"),
        ({"fingerprints": ["a"]}, "fingerprints: expected"),
        ({"fingerprints": {"clap_rvq": 1}}, "fingerprints: expected"),
    ],
)
def test_an_edited_description_is_refused(store: Path, keys: dict, told: str) -> None:
    edited(store, **keys)
    message = refused(store)
    assert re.search(told, message)
    assert message.startswith(f"{store / 'store.json'}: ")
    assert "restore this file, or preprocess into another folder" in message


@pytest.mark.parametrize("content", ['{"format_version": 1, "format_version": 1}', "[" * 1000, "\ud800", "NaN", "null"])
def test_a_damaged_description_is_refused(store: Path, content: str) -> None:
    (store / "store.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert "restore this file" in refused(store)
