"""Tokens of a given sound, to continue it or to regenerate it."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import StageName
from open_musiclm.generation.planner import TickGrid
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer


@dataclass(frozen=True)
class PromptTokens:
    """The tokens that a session continues, the same for every request: `ticks` of each stage's stream."""

    ticks: int
    tokens: Mapping[StageName, Int[Tensor, "1 _ quantizers"]]


def encode_audio_prompt(
    sound: Sound, ticks: int, grid: TickGrid, tokenizer: MusicTokenizer, coarse_quantizers: int
) -> PromptTokens:
    """The tokens of a sound's last `ticks`; its first `coarse_quantizers` codebooks are the coarse ones."""
    seconds, device = float(grid.seconds(ticks)), tokenizer.device
    semantic_hz = tokenizer.semantic.mert.sample_hz
    semantic = audio.semantic_input(sound, semantic_hz).to(device)[-audio.samples_of(seconds, semantic_hz) :]
    wave = audio.resampled(sound, tokenizer.codec.sample_hz).to(device)
    acoustic = tokenizer.acoustic_ids(wave[-audio.samples_of(seconds, tokenizer.codec.sample_hz) :].unsqueeze(0))
    return PromptTokens(
        ticks,
        {
            "semantic": tokenizer.semantic_ids(semantic.unsqueeze(0)),
            "coarse": acoustic[..., :coarse_quantizers],
            "fine": acoustic[..., coarse_quantizers:],
        },
    )


class SoundTokens:
    """Tokens of any segment of a sound, which is repeated up to `ticks`."""

    def __init__(
        self, sound: Sound, ticks: int, grid: TickGrid, tokenizer: MusicTokenizer, coarse_quantizers: int
    ) -> None:
        self.grid, self.tokenizer, self.coarse_quantizers = grid, tokenizer, coarse_quantizers
        self._semantic_hz, self._acoustic_hz = tokenizer.semantic.mert.sample_hz, tokenizer.codec.sample_hz
        seconds = float(grid.seconds(ticks))
        acoustic = audio.resampled(sound, self._acoustic_hz).to(tokenizer.device)
        semantic = audio.semantic_input(sound, self._semantic_hz).to(tokenizer.device)
        self._semantic = audio.repeat_to(semantic, audio.samples_of(seconds, self._semantic_hz))
        self._acoustic = audio.repeat_to(acoustic, audio.samples_of(seconds, self._acoustic_hz))

    def semantic(self, start: int, end: int) -> Int[Tensor, "1 time 1"]:
        """The semantic tokens of ticks [start, end)."""
        return self.tokenizer.semantic_ids(self._segment(self._semantic, self._semantic_hz, start, end))

    def coarse(self, start: int, end: int) -> Int[Tensor, "1 time quantizers"]:
        """The coarse tokens of ticks [start, end)."""
        return self._acoustic_ids(start, end)[..., : self.coarse_quantizers]

    def given(self, start: int, end: int) -> PromptTokens:
        """The tokens of ticks [start, end), for a session that continues them."""
        acoustic = self._acoustic_ids(start, end)
        coarse, fine = acoustic[..., : self.coarse_quantizers], acoustic[..., self.coarse_quantizers :]
        return PromptTokens(end - start, {"semantic": self.semantic(start, end), "coarse": coarse, "fine": fine})

    def _acoustic_ids(self, start: int, end: int) -> Int[Tensor, "1 time quantizers"]:
        return self.tokenizer.acoustic_ids(self._segment(self._acoustic, self._acoustic_hz, start, end))

    def _segment(self, wave: Float[Tensor, "samples"], hz: int, start: int, end: int) -> Float[Tensor, "1 segment"]:
        per_tick = self.grid.seconds_per_tick * hz
        return wave[None, round(start * per_tick) : round(end * per_tick)]
