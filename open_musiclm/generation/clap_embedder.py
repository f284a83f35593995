"""CLAP embeddings of texts and of sound of any length."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.tokenizers.clap import Clap

_MOST_TEXTS = 4096
_WINDOWS_AT_ONCE = 16


class ClapEmbedder:
    """Embeds sound window by window, `window_seconds` each, and every text once.

    `sample_hz` is the rate of the waves of `embed_waves`.
    """

    def __init__(self, clap: Clap, window_seconds: float, sample_hz: int) -> None:
        self.clap, self.sample_hz = clap, sample_hz
        self.window = audio.samples_of(window_seconds, clap.sample_hz)
        self._texts: dict[str, Float[Tensor, "dim"]] = {}

    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Embeddings of length 1."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if len(self._texts) + len(new) > _MOST_TEXTS:
            self._texts.clear()
            new = list(dict.fromkeys(prompts))
        if new:
            self._texts.update(zip(new, self.clap.embed_text(new), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def embed_sound(self, sound: Sound) -> Float[Tensor, "dim"]:
        """The mean over the windows of a sound, of length 1; a sound shorter than a window is repeated."""
        return self._embed(audio.resampled(sound, self.clap.sample_hz)[None])[0]

    def embed_waves(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """As `embed_sound` for each of several waves at `sample_hz`."""
        resampled = audio.resample(waves, self.sample_hz, self.clap.sample_hz)
        samples = audio.samples_of(waves.shape[1] / self.sample_hz, self.clap.sample_hz)
        return self._embed(audio.fit_length(resampled, samples))

    def _embed(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """Windows of all waves together, so many at once as memory allows; the last window of a wave starts earlier
        where it would be shorter."""
        if waves.shape[1] < self.window:
            waves = torch.stack([audio.repeat_to(wave, self.window) for wave in waves])
        windows = torch.stack(audio.windows_of(waves, self.window), dim=1)
        parts = windows.flatten(0, 1).to(self.clap.model.device).split(_WINDOWS_AT_ONCE)
        embeddings = torch.cat([self.clap.embed_audio(part) for part in parts]).unflatten(0, (len(waves), -1))
        return torch.nn.functional.normalize(embeddings.mean(dim=1), dim=-1)
