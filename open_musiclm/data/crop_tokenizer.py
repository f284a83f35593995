"""Crops of sound to tokens on a device that is given new work before the tokens of the last are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig
from open_musiclm.data.crop_preparation import SoundCrop
from open_musiclm.data.token_store import StoredTokens

# Crops that share a batch where they are equally long. On a CPU one alone is quicker: it stays in the cache.
_CROPS_AT_ONCE = {"cpu": 1}
_CROPS_AT_ONCE_ELSEWHERE = 4


@runtime_checkable
class Tokenizer(Protocol):
    """What is needed of a MusicTokenizer: each kind of tokens from waves at the config's rate for it."""

    def clap_window_ids(
        self, waves: Sequence[Float[Tensor, "_"]], window: int, step: int
    ) -> Int[Tensor, "windows quantizers"]: ...

    def semantic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time 1"]: ...

    def acoustic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]: ...


@dataclass(frozen=True)
class PendingTokens:
    """Tokens [time, quantizers] of each crop, in their order, that the device may still be computing."""

    crops: Sequence[SoundCrop]
    clap: Sequence[Int[Tensor, "_ _"]]
    semantic: Sequence[Int[Tensor, "_ 1"]]
    acoustic: Sequence[Int[Tensor, "_ _"]]
    coarse_quantizers: int
    done: torch.cuda.Event | None

    def rows(self) -> list[StoredTokens]:
        """Waits for the device."""
        if self.done is not None:
            self.done.synchronize()
        coarse = self.coarse_quantizers
        return [
            StoredTokens(
                crop.path,
                float(crop.start_seconds),
                float(crop.seconds),
                self.clap[number],
                self.semantic[number],
                self.acoustic[number][:, :coarse],
                self.acoustic[number][:, coarse:],
            )
            for number, crop in enumerate(self.crops)
        ]


class CropTokenizer:
    """Tokens of crops as they would be of each crop alone. CLAP hears every window, one a second."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, device: torch.device, clap_batch_size: int) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.device = device
        self.clap_batch_size = clap_batch_size
        self._overlaps = device.type == "cuda"
        self._crops_at_once = _CROPS_AT_ONCE.get(device.type, _CROPS_AT_ONCE_ELSEWHERE)

    @torch.inference_mode()
    def start(self, crops: Sequence[SoundCrop]) -> PendingTokens:
        """Gives the device its work. On a GPU this returns before that is done."""
        clap = self._clap_ids(crops)
        semantic = self._by_length(crops, "semantic", self.tokenizer.semantic_ids)
        acoustic = self._by_length(crops, "acoustic", self.tokenizer.acoustic_ids)
        done = None
        if self._overlaps:
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self.device))
        coarse = self.config.global_cfg.num_coarse_quantizers
        return PendingTokens(crops, clap, semantic, acoustic, coarse, done)

    def _clap_ids(self, crops: Sequence[SoundCrop]) -> list[Int[Tensor, "_ _"]]:
        """Windows of all crops together, `clap_batch_size` at a time."""
        rate = self.config.clap_rvq_cfg.sample_hz
        window = round(self.config.global_cfg.clap_audio_length_seconds * rate)
        waves = [self._moved(crop.waves["clap"]) for crop in crops]
        counts = [(len(wave) - window) // rate + 1 for wave in waves]
        places = [(number, index) for number, count in enumerate(counts) for index in range(count)]
        ids = []
        for first in range(0, len(places), self.clap_batch_size):
            stretches = []
            for number, run in groupby(places[first : first + self.clap_batch_size], key=lambda place: place[0]):
                indices = [index for _, index in run]
                stretches.append(waves[number][indices[0] * rate : indices[-1] * rate + window])
            ids.append(self.tokenizer.clap_window_ids(stretches, window, rate))
        return list(self._fetched(torch.cat(ids)).split(counts)) if ids else []

    def _by_length(
        self, crops: Sequence[SoundCrop], kind: str, encode: Callable[[Tensor], Tensor]
    ) -> list[Int[Tensor, "_ _"]]:
        """Tokens of the whole crops; only equally long ones share a batch, for padding would change them."""
        found: dict[int, Tensor] = {}
        numbers = sorted(range(len(crops)), key=lambda number: crops[number].seconds)
        for _, equal in groupby(numbers, key=lambda number: crops[number].seconds):
            batch = list(equal)
            for first in range(0, len(batch), self._crops_at_once):
                some = batch[first : first + self._crops_at_once]
                ids = encode(torch.stack([self._moved(crops[number].waves[kind]) for number in some]))
                found.update(zip(some, self._fetched(ids), strict=True))
        return [found[number] for number in range(len(crops))]

    def _moved(self, wave: Float[Tensor, "_"]) -> Float[Tensor, "_"]:
        """The wave on the device; from pinned memory the copy happens beside other work."""
        return wave.to(self.device, non_blocking=self._overlaps)

    def _fetched(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Pinned memory that the device fills in its turn: not to be read before `done` has come."""
        return ids.to("cpu", non_blocking=self._overlaps)
