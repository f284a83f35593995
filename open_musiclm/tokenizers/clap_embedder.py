"""CLAP embeddings of texts and of sound of any length."""

import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config.json_files import shown
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.tokenizers.clap import Clap

_MOST_TEXTS = 4096
_WINDOWS_AT_ONCE = 16
_WINDOWS_IN_MEMORY = 32
_FEWEST_WINDOWS = 4
_SHOWN = 40  # characters of a prompt that is named


class ClapEmbedder:
    """Embeds sound window by window, `window_seconds` each, and every text once.

    `sample_hz` is the rate of the waves of `embed_waves`.
    """

    def __init__(self, clap: Clap, window_seconds: float, sample_hz: int) -> None:
        self.clap, self.sample_hz = clap, sample_hz
        self.window_seconds = window_seconds
        self.window = audio.samples_of(window_seconds, clap.sample_hz)
        self._texts: dict[str, Float[Tensor, "dim"]] = {}

    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Embeddings of length 1. Warns with a UserNotice if a prompt is longer than CLAP reads.

        Raises UserError if the prompts are not texts, or none is there, or CLAP's weights give no numbers.
        """
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise UserError(f"prompts: expected one text or more, found {shown(list(prompts))}")
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if len(self._texts) + len(new) > _MOST_TEXTS:
            self._texts.clear()
            new = list(dict.fromkeys(prompts))
        if new:
            for prompt, dropped in zip(new, self.clap.dropped_tokens(new), strict=True):
                if dropped:
                    warnings.warn(UserNotice(_cut(prompt, dropped)), stacklevel=2)
            embedded = self.clap.embed_text(new)
            for prompt, finite in zip(new, embedded.isfinite().all(dim=1).tolist(), strict=True):
                if not finite:
                    raise UserError(_no_number(prompt))
            self._texts.update(zip(new, embedded, strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def embed_sound(self, sound: Sound) -> Float[Tensor, "dim"]:
        """The mean over the windows of a sound, of length 1; a sound shorter than a window is repeated."""
        return self._embed(lambda start, end: sound.wave[None, start:end], 1, sound.wave.shape[0], sound.sample_hz)[0]

    def embed_waves(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """As `embed_sound` for each of several waves at `sample_hz`."""
        batch, samples = waves.shape
        return self._embed(lambda start, end: waves[:, start:end], batch, samples, self.sample_hz)

    def embed_segment(
        self, read: Callable[[int, int], Float[Tensor, "_"]], start: int, end: int
    ) -> Float[Tensor, "dim"]:
        """As `embed_sound` for samples [start, end) at `sample_hz`; `read(first, last)` gives samples [first, last)."""
        return self._embed(lambda first, last: read(start + first, start + last)[None], 1, end - start, self.sample_hz)[
            0
        ]

    def _embed(
        self, read: Callable[[int, int], Float[Tensor, "batch _"]], batch: int, samples: int, sample_hz: int
    ) -> Float[Tensor, "batch dim"]:
        """Long sound is read and resampled in parts of whole windows, so that memory is bounded."""
        at_once = max(_WINDOWS_IN_MEMORY // batch, _FEWEST_WINDOWS)
        window = audio.samples_of(self.window_seconds, sample_hz)
        embeddings = []
        for start, end in spans_of(samples, at_once * window, window):
            length = audio.samples_of((end - start) / sample_hz, self.clap.sample_hz)
            if end < samples:
                length = at_once * self.window
            wave = audio.fit_length(audio.resample(read(start, end), sample_hz, self.clap.sample_hz), length)
            embeddings.append(self._embed_windows(wave))
        return torch.nn.functional.normalize(torch.cat(embeddings, dim=1).mean(dim=1), dim=-1)

    def _embed_windows(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch windows dim"]:
        """The embeddings of the windows of all waves; the last window of a wave starts earlier where it would be
        shorter."""
        if waves.shape[1] < self.window:
            waves = torch.stack([audio.repeat_to(wave, self.window) for wave in waves])
        windows = torch.stack(audio.windows_of(waves, self.window), dim=1)
        parts = windows.flatten(0, 1).to(self.clap.model.device).split(_WINDOWS_AT_ONCE)
        return torch.cat([self.clap.embed_audio(part) for part in parts]).unflatten(0, (len(waves), -1))


def spans_of(samples: int, part: int, least: int) -> list[tuple[int, int]]:
    """[0, samples) in parts of `part` samples; a last part shorter than `least` is joined to the one before it."""
    inner = [*range(part, samples - least + 1, part)]
    return list(zip([0, *inner], [*inner, samples], strict=True))


def _cut(prompt: str, dropped: int) -> str:
    return f"prompt {_short(prompt)}: CLAP reads its first tokens only; the last {dropped} are dropped; use fewer words"


def _no_number(prompt: str) -> str:
    return f"prompt {_short(prompt)}: its CLAP embedding is not finite; are CLAP's weights damaged?"


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= _SHOWN else f"{prompt[:_SHOWN]}...")
