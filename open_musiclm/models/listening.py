"""Who chooses among samples: CLAP, and beside it an ear for rhythm where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import ModelConfig
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.rhythm_ear import SHORTEST_SECONDS, RhythmEar


@dataclass(frozen=True)
class Heard:
    """What was heard in a sound: its similarity to a text, and how many nats likelier the text makes its rhythm.

    The similarity is a cosine, as CLAP hears it; `closeness` is both in one.
    """

    similarity: float
    rhythm: float
    closeness: float

    def __str__(self) -> str:
        return f"similarity {self.similarity:.3f}" + (f"  rhythm {self.rhythm:+.2f}" if self.rhythm else "")


class Listener:
    """Tells how close sounds are to texts, and whether semantic tokens promise what a text asks for."""

    def __init__(self, config: ModelConfig, tokenizer: MusicTokenizer, ear: RhythmEar | None) -> None:
        self.tokenizer, self.ear = tokenizer, ear
        self.window_seconds = config.global_cfg.clap_audio_length_seconds
        self.sample_hz = config.encodec_cfg.sample_hz

    def embed_sound(self, sound: Sound) -> Float[Tensor, "dim"]:
        """The CLAP embedding of a sound: the mean over its windows, normalised."""
        clap = self.tokenizer.clap
        wave = audio.resampled(sound, clap.sample_hz)
        window = audio.samples_of(self.window_seconds, clap.sample_hz)
        windows = _windows(audio.repeat_to(wave, max(wave.shape[0], window)), window)
        embeddings = torch.cat([clap.embed_audio(part.unsqueeze(0).to(clap.model.device)) for part in windows])
        return torch.nn.functional.normalize(embeddings.mean(dim=0), dim=-1)

    def similarity(self, text: Float[Tensor, "dim"], wave: Float[Tensor, "samples"]) -> float:
        """Cosine similarity of a text's embedding and a wave at the codec's rate, as CLAP hears it."""
        return float(torch.dot(text, self.embed_sound(Sound(wave, self.sample_hz))))

    def rhythm(self, text: Float[Tensor, "dim"], wave: Float[Tensor, "samples"]) -> float:
        """How many nats likelier the wave's rhythm is with the text: the mean over the wave's windows.

        0 without an ear, and for waves of less than 4 s, in which a rhythm hardly repeats.
        """
        if self.ear is None or not self.hears_rhythm(wave.shape[0] / self.sample_hz):
            return 0.0
        mert = self.tokenizer.semantic.mert
        normal = audio.normalize(wave, audio.statistics_of(wave))
        heard = audio.resampled(Sound(normal, self.sample_hz), mert.sample_hz)
        window = audio.samples_of(self.window_seconds, mert.sample_hz)
        rhythms = [
            self.ear.describe(mert.features(part[None].to(self.ear.direction.device)))
            for part in _windows(heard, window)
        ]
        return float(self.ear.information(text[None].expand(len(rhythms), -1), torch.cat(rhythms)).mean())

    def hear(self, text: Float[Tensor, "dim"], wave: Float[Tensor, "samples"]) -> Heard:
        """How well a wave at the codec's rate fits a text's CLAP embedding.

        CLAP was trained so that similarity times its scale is how many nats likelier a sound is with a text than
        without, but for a constant (InfoNCE, van den Oord et al. 2018): that is what makes the two one sum.
        """
        similarity, rhythm = self.similarity(text, wave), self.rhythm(text, wave)
        return Heard(similarity, rhythm, similarity + rhythm / self.tokenizer.clap.scale)

    def hears_rhythm(self, seconds: float) -> bool:
        """Whether there is an ear for it, and music enough."""
        return self.ear is not None and seconds >= SHORTEST_SECONDS

    def promise(self, texts: Float[Tensor, "batch dim"], semantic: Int[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """How many nats likelier the rhythms that semantic tokens tell of are with the texts; there must be an ear."""
        assert self.ear is not None
        centroids = self.tokenizer.semantic.centroids
        windows = _windows(semantic.t(), round(self.window_seconds * self.ear.frame_hz))
        heard = [self.ear.information(texts, self.ear.describe(centroids[part.t()])) for part in windows]
        return torch.stack(heard).mean(dim=0)


def _windows(whole: Shaped[Tensor, "time *others"], window: int) -> Sequence[Shaped[Tensor, "_ *others"]]:
    """A wave, or tokens, cut into windows; where the last would be shorter, it begins earlier."""
    windows = list(whole.split(window))
    if windows[-1].shape[0] < window:
        windows[-1] = whole[-window:]
    return windows
