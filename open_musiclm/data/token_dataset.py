"""Training examples from a token store: aligned windows of all token streams."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.config import ModelConfig, StageName
from open_musiclm.data.example_order import ExampleOrder, random_generator
from open_musiclm.data.split import indices_by_split_folder, validation_places
from open_musiclm.data.store_description import stored_hz
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.tokens import TokenStream, stage_streams


class TokenDataset(Dataset[list[Int[Tensor, "time quantizers"]]]):
    """The endless stream of a stage's examples, from some rows of a store: example `index` is always the same.

    The outer crop, of the length of the semantic window, starts at a random whole second, where a CLAP window starts.
    The stage's window lies in it, at a random time that is whole in semantic tokens and in acoustic frames.
    """

    def __init__(
        self,
        store: TokenStore,
        rows: Sequence[int] | Int[np.ndarray, "rows"],
        stage: StageName,
        config: ModelConfig,
        seed: int,
    ) -> None:
        if not len(rows):
            raise UserError(f"{store.folder}: no rows are left to take examples from; preprocess more music")
        self.store = store
        self.rows = np.asarray(rows)
        self.seed = seed
        self.streams = stage_streams(stage, config)
        self._grid = config.token_grid
        self._outer_ticks = _ticks(config.window_seconds("semantic"), self._grid)
        self._inner_ticks = _ticks(config.window_seconds(stage), self._grid)
        windows = config.global_cfg
        self._outer_seconds = max(windows.semantic_audio_length_seconds, windows.clap_audio_length_seconds)
        self._order = ExampleOrder(len(rows), seed)

    def __len__(self) -> int:
        """The number of rows; example indices have no limit."""
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Int[Tensor, "_ _"]]:
        """The tokens [time, quantizers] of the stage's streams in their order (`STAGE_STREAMS`).

        Raises UserError if a shard is damaged.
        """
        row = self.row(index)
        generator = random_generator(self.seed, index)
        second = int(generator.integers(0, int(self.store.seconds(row) - self._outer_seconds), endpoint=True))
        offset = int(generator.integers(0, self._outer_ticks - self._inner_ticks, endpoint=True))
        clap, *framed = self.streams
        start = second + offset * self._grid
        return [self._window(row, clap, Fraction(second)), *(self._window(row, stream, start) for stream in framed)]

    def row(self, index: int) -> int:
        """The row of example `index`."""
        return int(self.rows[self._order.item(index)])

    def _window(self, row: int, stream: TokenStream, start: Fraction) -> Int[Tensor, "_ _"]:
        """A stream's tokens of the stage's window from `start` seconds on; of CLAP those of the window there."""
        count = stream.frames(self._inner_ticks * self._grid)
        return self.store.tokens(row, stream.name, int(start * stored_hz(stream)), count)


def split_rows(
    store: TokenStore, valid_frac: float, seed: int
) -> tuple[Int[np.ndarray, "training"], Int[np.ndarray, "validation"]]:
    """Training and validation rows; all rows of a sound file are in the same split.

    Folders `train` and `valid` decide, if the sound was in such folders. The rows are arrays: every data worker would
    copy a list of millions of numbers, as it counts references to them.
    """
    numbers = store.path_numbers()
    divided = indices_by_split_folder(sorted(set(store.paths())))
    chosen = validation_places(int(numbers.max()) + 1, valid_frac, seed) if divided is None else divided[1]
    in_validation = np.isin(numbers, list(chosen))
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def _ticks(seconds: float, grid: Fraction) -> int:
    """Steps of `grid` seconds in a window, which is a whole number of them."""
    return round(seconds / float(grid))
