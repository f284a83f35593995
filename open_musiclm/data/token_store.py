"""Preprocessed tokens on disk: Arrow stream shards that are mapped into memory, and store.json beside them.

One row is one crop of a sound file: path (below the folder of sound), start_seconds, seconds, and the lists clap,
semantic, coarse, fine, each flattened time-major. `datasets.Dataset.from_file` and pandas read the shards too.
"""

import fcntl
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import ModelConfig
from open_musiclm.data.store_description import DESCRIPTION_NAME, StoreDescription, quantizers, shortest_seconds
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write

SEQUENCES = ("clap", "semantic", "coarse", "fine")
SHARD_BYTES = 32 << 20
SHARD_SECONDS = 120.0
_SHARD_NAME = re.compile(r"tokens-(\d{5})-(\d{6})-(\d+)\.arrow")  # process, number, rows


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


class TokenStoreWriter:
    """Appends rows to a store. Each process has its own shards, which appear whole or not at all.

    A shard is closed after `shard_bytes` of tokens, after two minutes, and in the end: a kill loses at most that.
    Raises UserError where the store was made with other configs or weights, or another run writes it.
    """

    def __init__(
        self, folder: Path, description: StoreDescription, process_index: int = 0, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = folder
        self.process_index = process_index
        self.shard_bytes = shard_bytes
        self._config = description.model_config
        self._rows: list[StoredTokens] = []
        self._tokens = 0
        self._since = time.monotonic()
        self._lock = _locked(folder, process_index)
        try:
            if not (folder / DESCRIPTION_NAME).exists():
                description.write(folder)
            found = StoreDescription.read(folder)
            found.check_config(folder, description.model_config)
            found.check_fingerprints(folder, description.fingerprints)
            _check_windows(folder, found.model_config, description.model_config)
        except UserError:
            os.close(self._lock)
            raise
        own = [shard.number for shard in _shards(folder) if shard.process_index == process_index]
        self._next_number = max(own, default=-1) + 1
        for unfinished in folder.glob(f".*.tokens-{process_index:05d}-*.arrow"):
            unfinished.unlink(missing_ok=True)

    def stored_paths(self) -> set[str]:
        """The sound files that the store holds, whoever wrote them. Raises UserError where a shard is damaged."""
        return {path for shard in _shards(self.folder) for path in shard.table().column("path").to_pylist()}

    def add(self, rows: Sequence[StoredTokens]) -> None:
        """Takes rows that belong together: they land in the same shard. Raises UserError where the disk refuses."""
        if not self._rows:
            self._since = time.monotonic()
        self._rows.extend(rows)
        self._tokens += sum(getattr(row, name).numel() for row in rows for name in SEQUENCES)
        if self._tokens * 2 >= self.shard_bytes or time.monotonic() - self._since >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes a shard of the rows so far. Raises UserError where the disk refuses."""
        if not self._rows:
            return
        table = _table(self._rows, self._config)
        name = f"tokens-{self.process_index:05d}-{self._next_number:06d}-{len(self._rows)}.arrow"
        with (
            atomic_write(self.folder / name) as temporary,
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as stream,
        ):
            stream.write_table(table)
        self._next_number += 1
        self._rows, self._tokens = [], 0

    def __enter__(self) -> "TokenStoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            os.close(self._lock)


class TokenStore:
    """A store to read rows from at random; shards are mapped into memory when they are first needed.

    Data workers may have it, forked or spawned. Raises UserError where there is none, it was made with a config
    whose tokens differ, or its crops are shorter than this config's windows.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.folder = folder
        self.description = StoreDescription.read(folder)
        self.description.check_config(folder, config)
        _check_windows(folder, self.description.model_config, config)
        self._files = _shards(folder)
        self._ends = np.cumsum([shard.rows for shard in self._files])
        self._quantizers = quantizers(config)
        self._columns: dict[int, _Columns] = {}
        if not len(self):
            raise UserError(f"{folder}: holds no tokens yet; run scripts/preprocess_data.py")

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> StoredTokens:
        """All tokens of a row. Raises UserError where the row's shard is damaged."""
        columns, place = self._find(row)
        tokens = {name: self.piece(row, name, 0, None) for name in SEQUENCES}
        return StoredTokens(
            columns.path[place].as_py(), float(columns.start_seconds[place]), self.seconds(row), **tokens
        )

    def seconds(self, row: int) -> float:
        """The length of a row's crop. Raises UserError where its shard is damaged."""
        columns, place = self._find(row)
        return float(columns.seconds[place])

    def piece(self, row: int, name: str, first: int, count: int | None) -> Int[Tensor, "time quantizers"]:
        """`count` time steps of a row's sequence (without it, all that follow) from step `first` on.

        Reads no more of the file than that. Raises UserError where the row's shard is damaged.
        """
        columns, place = self._find(row)
        width = self._quantizers[name]
        tokens = columns.tokens(name, place)[first * width :]
        return torch.from_numpy(tokens[: None if count is None else count * width].astype(np.int64)).view(-1, width)

    def _find(self, row: int) -> tuple["_Columns", int]:
        """The columns of the row's shard, and its place in them."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = int(np.searchsorted(self._ends, row, side="right"))
        shard = self._files[number]
        if number not in self._columns:
            self._columns[number] = _Columns(shard.table())
        return self._columns[number], row - int(self._ends[number]) + shard.rows

    def paths(self) -> list[str]:
        """The sound file of every row, in the order of rows."""
        return [path for shard in self._files for path in shard.table().column("path").to_pylist()]

    def path_numbers(self) -> Int[np.ndarray, "rows"]:
        """For every row the place of its sound file among all files in order; quick for millions of rows."""
        chunks = [chunk for shard in self._files for chunk in shard.table().column("path").chunks]
        paths = pa.chunked_array(chunks).combine_chunks().dictionary_encode()
        return pc.rank(paths.dictionary).to_numpy()[paths.indices.to_numpy()].astype(np.int64) - 1

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_columns": {}}


class _Columns:
    """The columns of a shard as views of the mapped file."""

    def __init__(self, table: pa.Table) -> None:
        columns = {name: _only_chunk(table.column(name)) for name in table.column_names}
        self.path = columns["path"]
        self.start_seconds = columns["start_seconds"].to_numpy()
        self.seconds = columns["seconds"].to_numpy()
        self._lists = {name: (columns[name].offsets.to_numpy(), columns[name].values.to_numpy()) for name in SEQUENCES}

    def tokens(self, name: str, place: int) -> np.ndarray:
        offsets, values = self._lists[name]
        return values[offsets[place] : offsets[place + 1]]


@dataclass(frozen=True)
class _Shard:
    """A shard file, and what its name says."""

    path: Path
    process_index: int
    number: int
    rows: int

    def table(self) -> pa.Table:
        """The mapped content. Raises UserError where it is damaged."""
        try:
            with pa.memory_map(str(self.path)) as file:
                table = pa.ipc.open_stream(file).read_all()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{self.path}: cannot read: {error}; remove this file and preprocess again") from error
        if table.num_rows != self.rows:
            raise UserError(
                f"{self.path}: holds {table.num_rows} rows, its name says {self.rows}; remove it and preprocess again"
            )
        return table


def _shards(folder: Path) -> list[_Shard]:
    """The shards of a store by process and number; their names say all, so that none is opened."""
    matches = [_SHARD_NAME.fullmatch(name) for name in sorted(os.listdir(folder))]
    return [_Shard(folder / match[0], int(match[1]), int(match[2]), int(match[3])) for match in matches if match]


def _table(rows: Sequence[StoredTokens], config: ModelConfig) -> pa.Table:
    sizes = {
        "clap": config.clap_rvq_cfg.codebook_size,
        "semantic": config.hubert_kmeans_cfg.codebook_size,
        "coarse": config.encodec_cfg.codebook_size,
        "fine": config.encodec_cfg.codebook_size,
    }
    columns = {
        "path": pa.array([row.path for row in rows], pa.string()),
        "start_seconds": pa.array([row.start_seconds for row in rows], pa.float64()),
        "seconds": pa.array([row.seconds for row in rows], pa.float64()),
    }
    for name in SEQUENCES:
        flat = [getattr(row, name).flatten().numpy() for row in rows]
        offsets = np.cumsum([0, *(len(tokens) for tokens in flat)], dtype=np.int32)
        dtype = np.uint16 if sizes[name] <= 1 << 16 else np.uint32
        columns[name] = pa.ListArray.from_arrays(offsets, np.concatenate(flat).astype(dtype))
    return pa.table(columns)


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _locked(folder: Path, process_index: int) -> int:
    """A file descriptor that holds this process's part of the store for as long as it is open. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f".writer-{process_index:05d}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by data workers, gone after a kill
    except (BlockingIOError, PermissionError) as error:
        os.close(descriptor)
        raise UserError(f"{folder}: another run is writing tokens there; wait for it to end") from error
    return descriptor


def _check_windows(folder: Path, stored: ModelConfig, config: ModelConfig) -> None:
    if shortest_seconds(config) > shortest_seconds(stored):
        raise UserError(
            f"{folder}: global_cfg.semantic_audio_length_seconds is {config.global_cfg.semantic_audio_length_seconds}, "
            f"but the crops there may be as short as {shortest_seconds(stored)} s; preprocess into another folder"
        )
