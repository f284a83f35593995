"""CLAP's similarity and the rhythm score in one number."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.rhythm.scorer import RhythmScorer
from open_musiclm import audio
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.prompting import SteadyPrompt

SHORTEST_SECONDS = 4.0  # two seconds, the longest lag of the rhythm's descriptors, hardly repeat in less
_WAVES_AT_ONCE = 8  # through MERT


@dataclass(frozen=True)
class Ratings:
    """CLAP's cosines; how many nats likelier each text makes the rhythm, None where that was not measured."""

    similarity: Float[Tensor, "batch"]
    rhythm: Float[Tensor, "batch"] | None


class ClapRhythmScorer:
    """A `Scorer` that adds the rhythm score to CLAP's similarity; without `rhythm`, or of short waves, CLAP's alone.

    Similarity times CLAP's scale is, but for a constant, how many nats likelier a sound is with a text than without
    (InfoNCE, van den Oord et al. 2018), so that both add up after division of the rhythm's nats by the scale.
    """

    name = "similarity_and_rhythm"

    def __init__(self, model: MusicLM, rhythm: RhythmScorer | None) -> None:
        self.model, self.rhythm = model, rhythm
        self.window_seconds = model.config.global_cfg.clap_audio_length_seconds

    @classmethod
    def load(cls, model: MusicLM, path: Path | None) -> "ClapRhythmScorer":
        """With the rhythm scorer at `path`, if any. Raises UserError where it does not fit the model."""
        if path is None:
            return cls(model, None)
        tokenizer = model.tokenizer
        rhythm = RhythmScorer.load(path, model.config, tokenizer.device)
        rhythm.check(path, tokenizer.semantic.mert.feature_dim, tokenizer.clap.embedding_dim)
        return cls(model, rhythm)

    def measures_rhythm(self, seconds: float) -> bool:
        """Whether there is a rhythm scorer, and music long enough for it."""
        return self.rhythm is not None and seconds >= SHORTEST_SECONDS

    def score(self, prompts: Sequence[SteadyPrompt], waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch"]:
        """One number for each prompt and its wave at the codec's rate; higher is better."""
        return self.combined(self.rate(prompts, waves))

    def rate(self, prompts: Sequence[SteadyPrompt], waves: Float[Tensor, "batch samples"]) -> Ratings:
        """Both scores of each prompt and its wave at the codec's rate."""
        texts = self.model.embed_prompts(prompts)
        similarity = (self.model.embed_waves(waves) * texts).sum(dim=1)
        if not self.measures_rhythm(waves.shape[1] / self.model.sample_hz):
            return Ratings(similarity, None)
        parts = zip(texts.split(_WAVES_AT_ONCE), waves.split(_WAVES_AT_ONCE), strict=True)
        return Ratings(similarity, torch.cat([self._rhythm(*part) for part in parts]))

    def combined(self, ratings: Ratings) -> Float[Tensor, "batch"]:
        """The sum of both scores, in units of the similarity."""
        if ratings.rhythm is None:
            return ratings.similarity
        return ratings.similarity + ratings.rhythm / self.model.tokenizer.clap.scale

    def score_semantic(
        self, prompts: Sequence[SteadyPrompt], semantic: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch"]:
        """How many nats likelier each prompt makes the rhythm of semantic tokens. There must be a rhythm scorer."""
        return self._score_tokens(self.model.embed_prompts(prompts), semantic)

    def _rhythm(
        self, texts: Float[Tensor, "batch dim"], waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch"]:
        """The mean over windows of CLAP's length, of which the last starts earlier rather than being shorter."""
        semantic, from_hz = self.model.tokenizer.semantic, self.model.sample_hz
        to_hz = semantic.mert.sample_hz
        normalized = torch.stack([audio.normalize(wave, audio.statistics_of(wave)) for wave in waves])
        samples = audio.samples_of(waves.shape[1] / from_hz, to_hz)
        resampled = audio.fit_length(audio.resample(normalized, from_hz, to_hz), samples).to(texts.device)
        window = audio.samples_of(self.window_seconds, to_hz)
        windows = list(resampled.split(window, dim=1))
        if windows[-1].shape[1] < window:
            windows[-1] = resampled[:, -window:]
        return torch.stack([self._score_tokens(texts, semantic.encode(part)) for part in windows]).mean(dim=0)

    def _score_tokens(
        self, texts: Float[Tensor, "batch dim"], semantic: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch"]:
        assert self.rhythm is not None
        window = round(self.window_seconds * self.rhythm.frame_hz)
        return self.rhythm.score(texts, self.model.tokenizer.semantic.centroids[semantic], window)
