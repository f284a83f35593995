"""Reading a token store: random access to rows and slices, from memory-mapped files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import ModelConfig
from open_musiclm.data.shards import Shard, StoredTokens, find_shards
from open_musiclm.data.store_description import CLAP_WINDOWS_HZ, StoreDescription, shortest_seconds
from open_musiclm.errors import UserError
from open_musiclm.tokens import STREAM_NAMES, StreamName, TokenStream, token_streams

_LONGEST_SECONDS = 1e9


class TokenStore:
    """A store's rows. Shards are mapped into memory when they are first needed.

    Works in data workers, forked or spawned. Raises UserError if there is no store, it was made with a config
    whose tokens differ, or its crops are shorter than this config's windows.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.folder = folder
        self.description = StoreDescription.read(folder)
        self.description.check_config(folder, config)
        self._shards = find_shards(folder)
        self._ends = np.cumsum([shard.rows for shard in self._shards])
        self._streams = token_streams(config)
        self._columns: dict[int, _Columns] = {}
        if not len(self):
            raise UserError(f"{folder}: holds no tokens yet; run scripts/preprocess_data.py")

    def __len__(self) -> int:
        """The number of rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> StoredTokens:
        """All tokens of a row. Raises UserError if the row's shard is damaged."""
        columns, place = self._find(row)
        tokens = {name: self.tokens(row, name) for name in STREAM_NAMES}
        return StoredTokens(
            columns.path[place].as_py(), float(columns.start_seconds[place]), self.seconds(row), **tokens
        )

    def seconds(self, row: int) -> float:
        """The length of a row's crop. Raises UserError if its shard is damaged."""
        columns, place = self._find(row)
        return float(columns.seconds[place])

    def path(self, row: int) -> str:
        """The sound file of a row. Raises UserError if its shard is damaged."""
        columns, place = self._find(row)
        return columns.path[place].as_py()

    def start_seconds(self, row: int) -> float:
        """Where in its sound file a row's crop begins. Raises UserError if its shard is damaged."""
        columns, place = self._find(row)
        return float(columns.start_seconds[place])

    def tokens(
        self, row: int, name: StreamName, first: int = 0, count: int | None = None
    ) -> Int[Tensor, "time quantizers"]:
        """`count` time steps of a row's stream from step `first` on; without `count`, up to its end.

        Reads only these. Raises UserError if the row's shard is damaged.
        """
        stream = self._streams[name]
        if not stream.quantizers:  # no fine stage: as many steps as the coarse tokens, without a codebook
            return self.tokens(row, "coarse", first, count)[:, :0]
        columns, place = self._find(row)
        tokens = columns.tokens(name, place)[first * stream.quantizers :]
        tokens = tokens[: None if count is None else count * stream.quantizers]
        if len(tokens) and int(tokens.max()) >= stream.codebook_size:
            raise columns.shard.damaged(
                f"row {place} has the {name} id {tokens.max()}; ids are below {stream.codebook_size}"
            )
        return torch.from_numpy(tokens.astype(np.int64)).view(-1, stream.quantizers)

    def paths(self) -> list[str]:
        """The sound file of every row, in the order of rows."""
        return [path for shard in self._shards for path in shard.paths().to_pylist()]

    def path_numbers(self) -> Int[np.ndarray, "rows"]:
        """For every row the rank of its sound file among all sound files; fast for millions of rows."""
        chunks = [chunk for shard in self._shards for chunk in shard.paths().chunks]
        paths = pa.chunked_array(chunks).combine_chunks().dictionary_encode()
        return pc.rank(paths.dictionary).to_numpy()[paths.indices.to_numpy()].astype(np.int64) - 1

    def _find(self, row: int) -> tuple["_Columns", int]:
        """The columns of the row's shard, and its place in them."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number = int(np.searchsorted(self._ends, row, side="right"))
        shard = self._shards[number]
        if number not in self._columns:
            self._columns[number] = _Columns(shard, self.description.model_config)
        return self._columns[number], row - int(self._ends[number]) + shard.rows

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_columns": {}}


class _Columns:
    """The columns of a shard as views of the mapped file; the lists are as long as their rows' seconds want.

    Raises UserError if the shard is damaged.
    """

    def __init__(self, shard: Shard, config: ModelConfig) -> None:
        table = shard.table()
        columns = {name: _only_chunk(table.column(name)) for name in table.column_names}
        self.shard = shard
        self.path = columns["path"]
        self.start_seconds = columns["start_seconds"].to_numpy()
        self.seconds = columns["seconds"].to_numpy()
        self._lists = {
            name: (columns[name].offsets.to_numpy(), columns[name].values.to_numpy()) for name in STREAM_NAMES
        }
        self._check_seconds(shortest_seconds(config))
        for stream in token_streams(config).values():
            self._check_lengths(stream, config.global_cfg.clap_audio_length_seconds)

    def _check_seconds(self, shortest: int) -> None:
        for name, values, least in (("start_seconds", self.start_seconds, 0), ("seconds", self.seconds, shortest)):
            wrong = np.flatnonzero(~((values >= least) & (values < _LONGEST_SECONDS)))
            if len(wrong):
                raise self.shard.damaged(f"row {wrong[0]}: {name} {values[wrong[0]]:g}; expected at least {least}")

    def _check_lengths(self, stream: TokenStream, clap_seconds: float) -> None:
        if stream.frame_hz is None:
            frames = np.floor((self.seconds - clap_seconds) * CLAP_WINDOWS_HZ + 1e-6) + 1
        else:
            frames = np.round(self.seconds * stream.frame_hz) - stream.lost_frames
        found, expected = np.diff(self._lists[stream.name][0]), frames * stream.quantizers
        wrong = np.flatnonzero(found != expected)
        if len(wrong):
            row = wrong[0]
            raise self.shard.damaged(
                f"row {row}: {found[row]} {stream.name} tokens; {self.seconds[row]:g} s have {expected[row]:g}"
            )

    def tokens(self, name: StreamName, place: int) -> np.ndarray:
        offsets, values = self._lists[name]
        return values[offsets[place] : offsets[place + 1]]


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
