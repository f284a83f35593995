"""Infilling: some seconds of a sound are regenerated, the rest stays.

The stages continue the tokens before the gap, as with an audio prompt. They are causal, so the tokens after the gap
cannot guide them. Instead the semantic stage generates several candidates, and the one that gives the true tokens after
the gap the highest likelihood is kept. The coarse stage is then conditioned on those true tokens too. The
model may not match the loudness of the surrounding sound, so the new seconds are leveled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Patch, Sound
from open_musiclm.config import ModelConfig
from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.planner import TickGrid, advance, plan_gap
from open_musiclm.generation.prompts.audio_prompt import PromptTokens, SoundTokens
from open_musiclm.generation.session import GenerationSession
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokens import token_streams

# The share of the semantic window that scores a candidate: the time just after the gap matters most.
FOLLOWING_SHARE = 0.25


@dataclass(frozen=True)
class Infilled:
    """A sound with regenerated seconds. `new` replaces its samples from `first` on, at its own rate, and is as loud as
    the model made it.

    `log_likelihoods` has the score of every candidate, in nats per token, where something follows the gap; candidate
    number `chosen` has the best.
    """

    sound: Sound
    new: Float[Tensor, "new"]
    first: int
    chosen: int
    log_likelihoods: list[float]

    @property
    def end(self) -> int:
        """The first sample after the new ones."""
        return self.first + len(self.new)

    @property
    def patch(self) -> Patch:
        """The new samples with the loudness of the sound around them."""
        wave = self.sound.wave.cpu()[None]
        return self.patch_between(wave[:, : self.first], wave[:, self.end :])

    def patch_between(self, before: Float[Tensor, "channels before"], after: Float[Tensor, "channels after"]) -> Patch:
        """The new samples, to be in every channel, with the loudness of the channels of the sound around them."""
        wave = audio.leveled(self.new, before, after, self.sound.sample_hz)
        return audio.crossfaded(wave.numpy(), self.first, len(self.sound.wave), self.sound.sample_hz)

    @property
    def wave(self) -> Float[Tensor, "samples"]:
        """The whole sound [samples]; samples outside of the new seconds are unchanged, bit for bit."""
        return torch.from_numpy(self.patch.onto(self.sound.wave.cpu().numpy()[:, None], 0)[:, 0])


class Infilling:
    """Seconds [start, end) of a sound, and the tokens around them.

    The semantic stage advances over its window as by `GenerationConfig.semantic_advance`.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: MusicTokenizer,
        sound: Sound,
        start: float,
        end: float,
        semantic_advance: float | None = None,
    ) -> None:
        self.grid, self.streams, self.sound = TickGrid(config.token_grid), token_streams(config), sound
        window = self.grid.ticks(config.window_seconds("semantic"))
        codec = tokenizer.codec
        # What the decoder needs after the gap, and the one semantic token that a segment loses at its end.
        beyond = self.grid.ticks(codec.lookahead_frames * codec.hop / codec.sample_hz) + 1
        self.gap = plan_gap(
            self.grid.whole_ticks(start),
            self.grid.ticks(end),
            self.grid.whole_ticks(sound.seconds),
            window,
            context=window - advance("semantic", window, semantic_advance),
            following=max(int(window * FOLLOWING_SHARE), beyond),
        )
        self.first = max(self.gap.known_end - window, self.gap.origin)  # of the window that scores candidates
        self.new_seconds = float(self.grid.seconds(self.gap.end - self.gap.start + beyond))
        self._samples = [min(audio.samples_of(seconds, sound.sample_hz), len(sound.wave)) for seconds in (start, end)]
        coarse = self.streams["coarse"].quantizers
        self._tokens = SoundTokens(sound, self.gap.known_end, self.grid, tokenizer, coarse)

    @property
    def is_followed(self) -> bool:
        """Whether semantic tokens follow the gap, so that candidates can be scored; a sound's last one is lost."""
        return self.grid.frames(self.streams["semantic"], self.gap.known_end - self.gap.end) > 0

    def best_of(self, count: int, at_once: int, session_of: Callable[[Sequence[int]], GenerationSession]) -> Infilled:
        """The best of `count` candidates, which are compared `at_once` at a time; `session_of` gives the session of
        candidates with these numbers."""
        numbers = range(count if self.is_followed else 1)
        candidates, scores = [], []
        for first in range(0, len(numbers), at_once):
            session = session_of(numbers[first : first + at_once])
            candidates.append(self.candidates(session))
            if self.is_followed:
                scores += self.log_likelihoods(session, candidates[-1]).tolist()
        chosen = scores.index(max(scores)) if scores else 0
        best = torch.cat(candidates)[chosen : chosen + 1]
        new = self.new_samples(session_of([chosen]), best)
        return Infilled(self.sound, new, self._samples[0], chosen, scores)

    def candidates(self, session: GenerationSession) -> Int[Tensor, "batch time 1"]:
        """The semantic tokens of every request: those before the gap, then the new ones up to its end."""
        tokens = session.semantic_tokens(self._given(session))
        return tokens[:, : self.grid.first_frame(self.streams["semantic"], self.gap.end - self.gap.origin)]

    def with_following(self, candidates: Int[Tensor, "batch time 1"]) -> Int[Tensor, "batch longer 1"]:
        """The candidates and the true tokens that follow the gap."""
        following = self._tokens.semantic(self.gap.end, self.gap.known_end)
        return torch.cat((candidates, following.expand(len(candidates), -1, -1)), dim=1)

    def log_likelihoods(
        self, session: GenerationSession, candidates: Int[Tensor, "batch time 1"]
    ) -> Float[Tensor, "batch"]:
        """The mean log probability of the true tokens that follow, after each of the session's candidates."""
        generator = session.stages["semantic"]
        assert isinstance(generator, FlatGenerator)  # as the semantic stage always is
        skipped = self.grid.first_frame(self.streams["semantic"], self.first - self.gap.origin)
        window = self.with_following(candidates)[:, skipped:]
        return generator.log_likelihood([session.clap_tokens], window, candidates.shape[1] - skipped).cpu()

    def new_samples(self, session: GenerationSession, candidate: Int[Tensor, "1 time 1"]) -> Float[Tensor, "new"]:
        """The new samples of one candidate, at the sound's rate."""
        semantic, known = candidate, self.gap.end
        if self.is_followed:
            semantic, known = self.with_following(candidate), self.gap.known_end
        else:  # a segment loses its last token
            semantic = candidate[:, : self.grid.frames(self.streams["semantic"], known - self.gap.origin)]
        chunks = session.stream_from(self._given(session), semantic, known - self.gap.origin)
        new = Sound(torch.cat([chunk.cpu() for chunk in chunks], dim=1)[0], session.sample_hz)
        first, end = self._samples
        skipped = first - audio.samples_of(float(self.grid.seconds(self.gap.start)), self.sound.sample_hz)
        return audio.resampled(new, self.sound.sample_hz)[skipped : skipped + end - first]

    def _given(self, session: GenerationSession) -> PromptTokens:
        if self.gap.start == self.gap.origin:
            return session.prompt_tokens(None)
        return self._tokens.given(self.gap.origin, self.gap.start)
