"""Training examples out of a token store: windows cut so that all sequences start at the same instant."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from open_musiclm.config import ModelConfig, StageName
from open_musiclm.data.draw_sampler import DrawOrder, random_generator
from open_musiclm.data.sound_dataset import validation_places
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError

_SEQUENCES = {"semantic": ("semantic",), "coarse": ("semantic", "coarse"), "fine": ("coarse", "fine")}  # after CLAP


class TokenDataset(Dataset[list[Int[Tensor, "time quantizers"]]]):
    """The endless stream of a stage's examples out of some rows of a store: example `draw` is always the same.

    An outer crop, the semantic window, starts at a random whole second: CLAP heard its window there. The
    stage's own window lies in it at a random moment that is whole in semantic tokens and in acoustic frames.
    """

    def __init__(
        self, store: TokenStore, rows: Sequence[int], stage: StageName, config: ModelConfig, seed: int
    ) -> None:
        if not rows:
            raise UserError(f"{store.folder}: no rows are left to take examples from; preprocess more music")
        self.store = store
        self.rows = rows
        self.stage = stage
        self.seed = seed
        acoustic_hz = config.encodec_cfg.output_hz
        self._rates = {"semantic": config.hubert_kmeans_cfg.output_hz, "coarse": acoustic_hz, "fine": acoustic_hz}
        self._grid = config.token_grid
        self._outer_ticks = _ticks(config.window_seconds("semantic"), self._grid)
        self._inner_ticks = _ticks(config.window_seconds(stage), self._grid)
        windows = config.global_cfg
        self._outer_seconds = max(windows.semantic_audio_length_seconds, windows.clap_audio_length_seconds)
        self._order = DrawOrder(len(rows), seed)

    def __len__(self) -> int:
        """How many rows there are; draws go on beyond it."""
        return len(self.rows)

    def __getitem__(self, draw: int) -> list[Int[Tensor, "_ _"]]:
        """The token sequences [time, quantizers] in the stage's order. Raises UserError where a shard is damaged.

        semantic: CLAP, semantic; coarse: CLAP, semantic, coarse; fine: CLAP, coarse, fine.
        """
        row = self.rows[self._order.index(draw)]
        generator = random_generator(self.seed, draw)
        second = int(generator.integers(0, int(self.store.seconds(row) - self._outer_seconds), endpoint=True))
        offset = int(generator.integers(0, self._outer_ticks - self._inner_ticks, endpoint=True))
        start, window = second + offset * self._grid, self._inner_ticks * self._grid
        pieces = {"clap": self.store.piece(row, "clap", second, 1)}
        for name in _SEQUENCES[self.stage]:
            rate = self._rates[name]
            lost = 1 if name == "semantic" else 0  # HuBERT's convolutions lose the last frame
            pieces[name] = self.store.piece(row, name, int(start * rate), int(window * rate) - lost)
        return list(pieces.values())


def split_rows(store: TokenStore, valid_frac: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and validation rows; all rows of a sound file fall on the same side."""
    numbers = store.path_numbers()
    chosen = validation_places(int(numbers.max()) + 1, valid_frac, seed)
    in_validation = np.isin(numbers, list(chosen))
    return np.flatnonzero(~in_validation).tolist(), np.flatnonzero(in_validation).tolist()


def _ticks(seconds: float, grid: Fraction) -> int:
    return round(seconds / float(grid))
