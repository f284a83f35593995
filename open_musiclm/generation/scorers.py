"""How close sound is to a text: as CLAP hears it, and beside CLAP an ear for rhythm where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.rhythm.scorer import SHORTEST_SECONDS, RhythmEar
from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import ModelConfig
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer


@dataclass(frozen=True)
class Heard:
    """A cosine, as CLAP hears it; how many nats likelier the text makes the rhythm, if that was heard; both in one."""

    similarity: float
    rhythm: float | None
    closeness: float

    def __str__(self) -> str:
        return f"similarity {self.similarity:.3f}" + ("" if self.rhythm is None else f", rhythm {self.rhythm:+.2f}")


class Listener:
    """Tells how close waves are to texts, and what semantic tokens promise."""

    def __init__(self, config: ModelConfig, tokenizer: MusicTokenizer, ear: RhythmEar | None) -> None:
        self.tokenizer, self.ear = tokenizer, ear
        self.window_seconds = config.global_cfg.clap_audio_length_seconds
        self.sample_hz = config.encodec_cfg.sample_hz

    def hears_rhythm(self, seconds: float) -> bool:
        """Whether there is an ear for rhythm, and music enough for it."""
        return self.ear is not None and seconds >= SHORTEST_SECONDS

    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """The CLAP embeddings of prompts."""
        return self.tokenizer.clap.embed_text(prompts)

    def embed_sound(self, sound: Sound) -> Float[Tensor, "dim"]:
        """The CLAP embedding of a sound: the mean over its windows, normalised."""
        clap = self.tokenizer.clap
        wave = audio.resampled(sound, clap.sample_hz)
        window = audio.samples_of(self.window_seconds, clap.sample_hz)
        windows = _windows(audio.repeat_to(wave, max(wave.shape[0], window)), window)
        embeddings = torch.cat([clap.embed_audio(part.unsqueeze(0).to(clap.model.device)) for part in windows])
        return torch.nn.functional.normalize(embeddings.mean(dim=0), dim=-1)

    def similarities(
        self, said: Float[Tensor, "batch dim"], waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch"]:
        """Cosine similarity of each text's embedding and its wave at the codec's rate, as CLAP hears them."""
        heard = [self.embed_sound(Sound(wave, self.sample_hz)) for wave in waves]
        return (torch.stack(heard) * said).sum(dim=1)

    def hear(self, prompt: str, wave: Float[Tensor, "samples"]) -> Heard:
        """How close a wave at the codec's rate is to a prompt.

        CLAP was trained so that similarity times its scale is how many nats likelier a sound is with a text than
        without, but for a constant (InfoNCE, van den Oord et al. 2018): that is what makes the two one sum. Of less
        than 4 s no rhythm is heard.
        """
        said = self.embed_text([prompt])
        similarity = float(self.similarities(said, wave[None]))
        if not self.hears_rhythm(wave.shape[0] / self.sample_hz):
            return Heard(similarity, None, similarity)
        rhythm = self._rhythm(said, wave)
        return Heard(similarity, rhythm, similarity + rhythm / self.tokenizer.clap.scale)

    def _rhythm(self, said: Float[Tensor, "1 dim"], wave: Float[Tensor, "samples"]) -> float:
        """How many nats likelier a text makes the rhythm of a wave: the mean over its windows."""
        mert_hz = self.tokenizer.semantic.mert.sample_hz
        normal = Sound(audio.normalize(wave, audio.statistics_of(wave)), self.sample_hz)
        windows = _windows(audio.resampled(normal, mert_hz), audio.samples_of(self.window_seconds, mert_hz))
        semantic = [self.tokenizer.semantic_ids(part[None].to(said.device)) for part in windows]
        return float(torch.cat([self.promise(said, ids[..., 0]) for ids in semantic]).mean())

    def promise(self, said: Float[Tensor, "batch dim"], semantic: Int[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """How well the ear, which there must be, finds the rhythm of semantic tokens to go with texts' embeddings."""
        assert self.ear is not None
        window = round(self.window_seconds * self.ear.frame_hz)
        return self.ear.hear(said, self.tokenizer.semantic.centroids[semantic], window)


def _windows(wave: Float[Tensor, "samples"], window: int) -> list[Float[Tensor, "_"]]:
    """A wave in windows; where the last would be shorter, it begins earlier."""
    windows = list(wave.split(window))
    if windows[-1].shape[0] < window:
        windows[-1] = wave[-window:]
    return windows
