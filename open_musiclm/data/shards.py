"""Shards of a token store: Arrow stream files that are mapped into memory, one row for each crop of a sound file.

A row has path (below the folder of sound), start_seconds, seconds, and the lists clap, semantic, coarse, fine, each
flattened time-major. `datasets.Dataset.from_file` and pandas read shards too.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write
from open_musiclm.tokens import STREAM_NAMES, StreamName, TokenStream

REMEDY = "remove this file and preprocess again, which adds the missing tokens"
_NAME = re.compile(r"tokens-(\d{5})-(\d{6,})-(\d+)\.arrow", re.ASCII)  # process, number, rows
_MOST_ROWS = 1 << 31
_TYPES = {"path": pa.string(), "start_seconds": pa.float64(), "seconds": pa.float64()}
_LISTS = (pa.list_(pa.uint16()), pa.list_(pa.uint32()))


@dataclass(frozen=True)
class StoredTokens:
    """The tokens of one crop of a sound file; CLAP has one window a second."""

    path: str
    start_seconds: float
    seconds: float
    clap: Int[Tensor, "windows clap_quantizers"]
    semantic: Int[Tensor, "semantic_time 1"]
    coarse: Int[Tensor, "acoustic_time coarse_quantizers"]
    fine: Int[Tensor, "acoustic_time fine_quantizers"]

    @property
    def count(self) -> int:
        """The number of tokens of all streams."""
        return sum(getattr(self, name).numel() for name in STREAM_NAMES)


@dataclass(frozen=True)
class Shard:
    """A shard file, and what its name says."""

    path: Path
    process_index: int
    number: int
    rows: int

    def table(self) -> pa.Table:
        """The mapped content, whose columns are those of a shard. Raises UserError if it is damaged."""
        if not self.path.is_file():
            raise self.damaged("cannot read: no regular file")
        try:
            with pa.memory_map(str(self.path)) as file:
                table = pa.ipc.open_stream(file).read_all()
            table.validate(full=True)  # lists that lie outside of the file would end the process
            self._check_columns(table)
        except (OSError, MemoryError, ValueError, pa.ArrowException) as error:
            raise self.damaged(f"cannot read: {error}") from error
        if table.num_rows != self.rows:
            raise self.damaged(f"holds {table.num_rows} rows, its name says {self.rows}")
        return table

    def paths(self) -> pa.ChunkedArray:
        """The sound file of each row. Raises UserError if the shard is damaged."""
        return self.table().column("path")

    def damaged(self, found: str) -> UserError:
        """The error for this damaged file: one line with the problem and the remedy."""
        return UserError(f"{self.path}: {' '.join(found.split())[:300]}; {REMEDY}")

    def _check_columns(self, table: pa.Table) -> None:
        """Raises UserError if a column is missing, foreign, of another type, or has nulls."""
        names = (*_TYPES, *STREAM_NAMES)
        if sorted(table.column_names) != sorted(names):
            raise self.damaged(f"has the columns {', '.join(table.column_names)}; expected {', '.join(names)}")
        for name in names:
            column = table.column(name)
            wanted = (_TYPES[name],) if name in _TYPES else _LISTS
            if column.type not in wanted:
                raise self.damaged(f"column {name} is {column.type}; expected {' or '.join(map(str, wanted))}")
            inner = sum(chunk.values.null_count for chunk in column.chunks) if name in STREAM_NAMES else 0
            if column.null_count + inner:
                raise self.damaged(f"column {name} has nulls")


def find_shards(folder: Path) -> list[Shard]:
    """The shards of a store by process and number. Opens none: their names say how many rows they have.

    Raises UserError if the folder cannot be read, or a name has more rows than a shard can hold.
    """
    try:
        matches = [_NAME.fullmatch(name) for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise UserError(f"{folder}: cannot read this folder of tokens: {error.strerror}") from error
    shards = []
    for match in filter(None, matches):
        path = folder / match[0]
        if len(match[3]) > len(str(_MOST_ROWS)) or int(match[3]) > _MOST_ROWS:
            raise UserError(f"{path}: its name says more rows than a shard can hold, {_MOST_ROWS}; {REMEDY}")
        shards.append(Shard(path, int(match[1]), int(match[2]), int(match[3])))
    return shards


def write_shard(
    folder: Path,
    process_index: int,
    number: int,
    rows: Sequence[StoredTokens],
    streams: Mapping[StreamName, TokenStream],
) -> None:
    """Writes a shard atomically. Raises UserError if writing fails."""
    columns = {key: pa.array([getattr(row, key) for row in rows], kind) for key, kind in _TYPES.items()}
    for name, stream in streams.items():
        columns[name] = _flat_lists([getattr(row, name) for row in rows], stream)
    table = pa.table(columns)
    with (
        atomic_write(folder / f"tokens-{process_index:05d}-{number:06d}-{len(rows)}.arrow") as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as stream,
    ):
        stream.write_table(table)


def remove_unfinished(folder: Path, process_index: int) -> None:
    """Removes the temporary files of shards that a killed process did not finish."""
    for unfinished in folder.glob(f".*.tokens-{process_index:05d}-*.arrow"):
        unfinished.unlink(missing_ok=True)


def _flat_lists(tokens: Sequence[Int[Tensor, "_ _"]], stream: TokenStream) -> pa.ListArray:
    """One list a row, time-major, in 16 bits where the codebook allows it."""
    flat = [ids.flatten().numpy() for ids in tokens]
    offsets = np.cumsum([0, *(len(ids) for ids in flat)], dtype=np.int32)
    dtype = np.uint16 if stream.codebook_size <= 1 << 16 else np.uint32
    return pa.ListArray.from_arrays(offsets, np.concatenate(flat).astype(dtype))
