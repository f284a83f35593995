"""A generation session: one batch of requests, from CLAP tokens to sound.

Each stage's tokens are a track. The decoder asks the last track for the tokens of the next chunk, a track asks the one
before it for its conditioning, and so every stage runs just as far as the next chunk of sound needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import GenerationConfig, ModelConfig, StageName
from open_musiclm.generation.arguments import check_count, check_prompts
from open_musiclm.generation.audio_prompt import PromptTokens, SoundTokens, encode_audio_prompt
from open_musiclm.generation.planner import TickGrid, Window, advance, plan_steps, plan_windows
from open_musiclm.generation.sampling import sample_rng, sampling_of
from open_musiclm.generation.stage_generator import StageGenerator
from open_musiclm.generation.tracks import (
    EncodedTrack,
    GeneratedTrack,
    Progress,
    Tokens,
    Track,
    WindowMaker,
    finished_track,
)
from open_musiclm.models.stages import STAGE_NAMES
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokens import token_streams

# Sound before a chunk that the codec decodes again, so that its LSTM has settled where the chunk starts.
DECODER_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Request:
    """One sample of one prompt: what its random numbers depend on, besides the seed."""

    prompt: str
    number: int


def requests_of(prompts: str | Sequence[str], num_samples: int) -> list[Request]:
    """All samples of the first prompt, then of the next. Raises UserError."""
    count = check_count("num_samples", num_samples)
    return [Request(prompt, number) for prompt in check_prompts(prompts) for number in range(count)]


class GenerationSession:
    """One batch of requests for `duration` seconds of new music.

    `stages` may lack those that are not asked for.
    """

    def __init__(
        self,
        config: ModelConfig,
        stages: Mapping[StageName, StageGenerator],
        tokenizer: MusicTokenizer,
        requests: Sequence[Request],
        clap_tokens: Int[Tensor, "batch 1 quantizers"],
        duration: float,
        generation_config: GenerationConfig,
        progress: Progress | None = None,
    ) -> None:
        self.config, self.stages, self.tokenizer = config, stages, tokenizer
        self.requests, self.clap_tokens = list(requests), clap_tokens
        self.generation_config = generation_config
        self.progress = progress or Progress()
        self.grid = TickGrid(config.token_grid)
        self.streams = token_streams(config)
        self.sample_hz = config.encodec_cfg.sample_hz
        self.samples = audio.samples_of(duration, self.sample_hz)
        self.new_ticks = self.grid.ticks(duration)
        self.window = {name: self.grid.ticks(config.window_seconds(name)) for name in STAGE_NAMES}

    def stream(self, audio_prompt: Sound | None = None) -> Iterator[Float[Tensor, "batch samples"]]:
        """Chunks of new music; with an audio prompt, that sound first and then music that goes on from it."""
        prompt = self.prompt_tokens(audio_prompt)
        semantic = self.semantic_track(prompt)
        return self.finish(self.coarse_track(prompt, semantic), prompt, audio_prompt)

    def regenerate(self, sound: Sound, first_stage: StageName) -> Iterator[Float[Tensor, "batch samples"]]:
        """Chunks of the sound made anew from the coarse or from the fine stage on."""
        ticks = max(self.new_ticks, self.window["coarse"])
        given = SoundTokens(sound, ticks, self.grid, self.tokenizer, self.streams["coarse"].quantizers)
        coarse: Track = EncodedTrack(given.coarse)
        prompt = self.prompt_tokens(None)
        if first_stage == "coarse":
            total = max(self.new_ticks, self.window["fine"])
            coarse = self._track("coarse", EncodedTrack(given.semantic), prompt, total)
        return self.finish(coarse, prompt, None)

    def prompt_tokens(self, audio_prompt: Sound | None) -> PromptTokens:
        """The tokens of a given sound's last seconds, as many as leave the semantic window its advance."""
        context = self.window["semantic"] - advance("semantic", self.window["semantic"])
        ticks = 0 if audio_prompt is None else min(context, self.grid.whole_ticks(audio_prompt.seconds))
        if audio_prompt is None or ticks == 0:
            empty = {name: self.clap_tokens.new_zeros(1, 0, self.streams[name].quantizers) for name in STAGE_NAMES}
            return PromptTokens(0, empty)
        coarse = self.streams["coarse"].quantizers
        return encode_audio_prompt(audio_prompt, ticks, self.grid, self.tokenizer, coarse)

    def semantic_track(self, prompt: PromptTokens) -> GeneratedTrack:
        """The semantic tokens of the prompt and of all new music."""
        return self._track("semantic", None, prompt, self._semantic_total(prompt))

    def semantic_tokens(self, prompt: PromptTokens) -> Int[Tensor, "batch time 1"]:
        """All of `semantic_track`, made at once."""
        return self.semantic_track(prompt).tokens(0, self._semantic_total(prompt))

    def particle_tracks(
        self, prompt: PromptTokens, semantic: Int[Tensor, "batch time 1"] | None
    ) -> tuple[GeneratedTrack, GeneratedTrack]:
        """Semantic and coarse tracks whose requests are compared after each coarse window.

        The semantic tokens are those given; else none is made before a coarse window needs it.
        """
        total = self._semantic_total(prompt)
        if semantic is not None:
            semantic_track = finished_track(self.streams["semantic"], self.grid, semantic)
        else:
            step = advance("coarse", self.window["coarse"])
            windows = plan_steps(prompt.ticks, total, self.window["semantic"], step)
            semantic_track = self._track("semantic", None, prompt, total, windows)
        return semantic_track, self.coarse_track(prompt, semantic_track)

    def coarse_track(self, prompt: PromptTokens, semantic: Track) -> GeneratedTrack:
        """The coarse tokens of the prompt and of all new music."""
        return self._track("coarse", semantic, prompt, self._coarse_total(prompt))

    def finish(
        self, coarse: Track, prompt: PromptTokens, audio_prompt: Sound | None
    ) -> Iterator[Float[Tensor, "batch _"]]:
        """The audio prompt, if any, then chunks of exactly the samples asked for, decoded from coarse tokens and,
        unless the coarse wave is asked for, fine ones."""
        tracks = [coarse]
        if "fine" in self.config.stage_names and not self.generation_config.return_coarse_wave:
            tracks.append(self._track("fine", coarse, prompt, prompt.ticks + self.new_ticks))
        if audio_prompt is not None:
            wave = audio.resampled(audio_prompt, self.sample_hz).to(self.clap_tokens.device)
            yield wave.expand(len(self.requests), -1)
        left, end = self.samples, prompt.ticks + self.new_ticks
        for start in range(prompt.ticks, end, self.window["fine"]):
            sound = self.decode(tracks, start, min(start + self.window["fine"], end))[:, :left]
            left -= sound.shape[1]
            yield sound

    def decode(self, tracks: Sequence[Track], start: int, end: int) -> Float[Tensor, "batch samples"]:
        """The sound of ticks [start, end) from tracks of the first codebooks on."""
        first = max(start - self.grid.ticks(DECODER_WARM_UP_SECONDS), 0)
        tokens = torch.cat([track.tokens(first, end) for track in tracks], dim=-1)
        wave = self.tokenizer.codec.decode(tokens)
        return wave[:, (start - first) * round(self.sample_hz * self.grid.seconds_per_tick) :]

    # Earlier stages go on at least to the end of the next one's window: its conditioning is always whole.
    def _coarse_total(self, prompt: PromptTokens) -> int:
        return max(prompt.ticks + self.new_ticks, self.window["fine"])

    def _semantic_total(self, prompt: PromptTokens) -> int:
        return max(self._coarse_total(prompt), self.window["coarse"])

    def _track(
        self,
        name: StageName,
        source: Track | None,
        prompt: PromptTokens,
        total: int,
        windows: Sequence[Window] | None = None,
    ) -> GeneratedTrack:
        """A stage's tokens up to `total` ticks, in `windows` or else in those that its advance gives."""
        stream, length = self.streams[name], self.window[name]
        assert stream.frame_hz is not None
        if windows is None:
            windows = plan_windows(prompt.ticks, total, length, length - advance(name, length))
        self.progress.begin(name, float(self.grid.seconds(total - prompt.ticks)))
        config = self.generation_config
        make = WindowMaker(
            self.stages[name],
            sampling_of(config, name),
            [sample_rng(config.seed, request.prompt, request.number, name) for request in self.requests],
            self.clap_tokens,
            source,
            length,
            self.progress,
            1 / stream.frame_hz,
        )
        tokens: Tokens = prompt.tokens[name].expand(len(self.requests), -1, -1)
        return GeneratedTrack(stream, self.grid, windows, tokens, make)
