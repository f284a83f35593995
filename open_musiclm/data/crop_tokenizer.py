"""Crops of sound to tokens. A GPU gets the next batch before the tokens of the last one are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.audio import samples_of
from open_musiclm.config import ModelConfig
from open_musiclm.data.crop_preparation import SoundCrop
from open_musiclm.data.crops import TokenizerKind, tokenizer_crop
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import CLAP_WINDOWS_HZ
from open_musiclm.tokens import token_streams

# Crops in a batch, where they are equally long. On a CPU one is faster: it stays in the cache.
_CROPS_AT_ONCE = {"cpu": 1}
_CROPS_AT_ONCE_ELSEWHERE = 4


@runtime_checkable
class Tokenizer(Protocol):
    """The part of MusicTokenizer that preprocessing needs: tokens from waves at each tokenizer's rate."""

    def clap_window_ids(
        self, waves: Sequence[Float[Tensor, "_"]], window: int, step: int
    ) -> Int[Tensor, "windows quantizers"]:
        """See `MusicTokenizer.clap_window_ids`."""

    def semantic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time 1"]:
        """See `MusicTokenizer.semantic_ids`."""

    def acoustic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]:
        """See `MusicTokenizer.acoustic_ids`."""


@dataclass(frozen=True)
class PendingTokens:
    """Tokens [time, quantizers] of each crop, in their order. The device may still be computing them."""

    crops: Sequence[SoundCrop]
    clap: Sequence[Int[Tensor, "_ _"]]
    semantic: Sequence[Int[Tensor, "_ 1"]]
    acoustic: Sequence[Int[Tensor, "_ _"]]
    coarse_quantizers: int
    done: torch.cuda.Event | None

    def rows(self) -> list[StoredTokens]:
        """The tokens as rows of a store. Waits for the device."""
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
    """Tokens of crops, which do not depend on the batch around a crop. CLAP receives one window a second."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, device: torch.device, clap_batch_size: int) -> None:
        self._window_crop = tokenizer_crop("clap", config.global_cfg.clap_audio_length_seconds, config)
        self._coarse_quantizers = token_streams(config)["coarse"].quantizers
        self.tokenizer = tokenizer
        self.device = device
        self.clap_batch_size = clap_batch_size
        self._overlaps = device.type == "cuda"
        self._crops_at_once = _CROPS_AT_ONCE.get(device.type, _CROPS_AT_ONCE_ELSEWHERE)

    @torch.inference_mode()
    def start(self, crops: Sequence[SoundCrop]) -> PendingTokens:
        """Starts the device's work. On a GPU this returns before it is done."""
        clap = self._clap_ids(crops)
        semantic = self._by_length(crops, "semantic", self.tokenizer.semantic_ids)
        acoustic = self._by_length(crops, "acoustic", self.tokenizer.acoustic_ids)
        done = None
        if self._overlaps:
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self.device))
        return PendingTokens(crops, clap, semantic, acoustic, self._coarse_quantizers, done)

    def _clap_ids(self, crops: Sequence[SoundCrop]) -> list[Int[Tensor, "_ _"]]:
        """CLAP tokens of the windows of all crops, `clap_batch_size` windows at a time."""
        window = samples_of(self._window_crop.seconds, self._window_crop.sample_hz)
        step = self._window_crop.sample_hz // CLAP_WINDOWS_HZ
        waves = [self._moved(crop.waves["clap"]) for crop in crops]
        counts = [(len(wave) - window) // step + 1 for wave in waves]
        places = [(number, index) for number, count in enumerate(counts) for index in range(count)]
        ids = []
        for first in range(0, len(places), self.clap_batch_size):
            segments = []
            for number, run in groupby(places[first : first + self.clap_batch_size], key=lambda place: place[0]):
                indices = [index for _, index in run]
                segments.append(waves[number][indices[0] * step : indices[-1] * step + window])
            ids.append(self.tokenizer.clap_window_ids(segments, window, step))
        return list(self._fetched(torch.cat(ids)).split(counts)) if ids else []

    def _by_length(
        self, crops: Sequence[SoundCrop], kind: TokenizerKind, encode: Callable[[Tensor], Tensor]
    ) -> list[Int[Tensor, "_ _"]]:
        """Tokens of whole crops. Only equally long crops share a batch: padding would change the tokens."""
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
        """The wave on the device; from pinned memory it is copied while the device computes."""
        return wave.to(self.device, non_blocking=self._overlaps)

    def _fetched(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The ids in pinned memory, which the device fills later: wait for `done` before reading them."""
        return ids.to("cpu", non_blocking=self._overlaps)
