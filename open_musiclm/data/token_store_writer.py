"""Writing a token store: every process appends its own shards."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from open_musiclm.data.shards import StoredTokens, find_shards, remove_unfinished, write_shard
from open_musiclm.data.store_description import DESCRIPTION_NAME, StoreDescription
from open_musiclm.errors import UserError
from open_musiclm.locking import FolderLock
from open_musiclm.tokens import token_streams

SHARD_BYTES = 32 << 20
SHARD_SECONDS = 120.0
TOKEN_BYTES = 2


class TokenStoreWriter:
    """Appends rows to a store, as atomically written shards of this process.

    A shard is closed after `shard_bytes` of tokens, after two minutes, and at the end: a kill loses at most that. The
    attribute `description` is that of the store.
    Raises UserError if the store was made with other configs or weights, or another run writes it.
    """

    def __init__(
        self, folder: Path, description: StoreDescription, process_index: int = 0, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = folder
        self.process_index = process_index
        self.shard_bytes = shard_bytes
        self._streams = token_streams(description.model_config)
        self._rows: list[StoredTokens] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._lock = FolderLock(folder, f".writer-{process_index:05d}.lock")
        try:
            if not (folder / DESCRIPTION_NAME).exists():
                description.write(folder)
            self.description = StoreDescription.read(folder)
            self.description.check_config(folder, description.model_config)
            self.description.check_fingerprints(folder, description.fingerprints)
        except UserError:
            self._lock.release()
            raise
        own = [shard.number for shard in find_shards(folder) if shard.process_index == process_index]
        self._next_number = max(own, default=-1) + 1
        remove_unfinished(folder, process_index)

    def stored_paths(self) -> set[str]:
        """The sound files in the store, of all processes. Raises UserError if a shard is damaged."""
        return {path for shard in find_shards(self.folder) for path in shard.paths().to_pylist()}

    def add(self, rows: Sequence[StoredTokens]) -> None:
        """Adds rows, all to the same shard. Raises UserError if writing fails."""
        if not self._rows:
            self._since = time.monotonic()
        self._rows.extend(rows)
        self._bytes += TOKEN_BYTES * sum(row.count for row in rows)
        if self._bytes >= self.shard_bytes or time.monotonic() - self._since >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes a shard of the rows so far. Raises UserError if writing fails."""
        if not self._rows:
            return
        write_shard(self.folder, self.process_index, self._next_number, self._rows, self._streams)
        self._next_number += 1
        self._rows, self._bytes = [], 0

    def __enter__(self) -> "TokenStoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._lock.release()
