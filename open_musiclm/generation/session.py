"""A generation session: one batch of requests, from CLAP tokens to sound.

Each stage's tokens are a track. The decoder requests the tokens of the next chunk from the last track, and a track
requests its conditioning from the track before it. So every stage runs only as far as the next chunk of sound needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import STAGE_NAMES, GenerationConfig, ModelConfig, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.checks import check_count
from open_musiclm.generation.decoding.sampling import sample_rng, sampling_of
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.generation.planner import TickGrid, advance, plan_windows
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.prompts.audio_prompt import PromptTokens, SoundTokens, encode_audio_prompt
from open_musiclm.generation.prompts.prompt_checks import check_prompts
from open_musiclm.generation.prompts.story import AnyPrompt, steps_of
from open_musiclm.generation.tracks import (
    ClapTrack,
    EncodedBlocks,
    EncodedTrack,
    GeneratedTrack,
    StageInputs,
    Tokens,
    Track,
)
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokens import token_streams

# The codec decodes at least so much sound before a chunk again, as context of its LSTM.
DECODER_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Request:
    """One sample of one prompt: what its random numbers depend on, besides the seed."""

    prompt: AnyPrompt
    number: int


def requests_of(prompts: AnyPrompt | Sequence[AnyPrompt], num_samples: int) -> list[Request]:
    """All samples of the first prompt, then of the next. Raises UserError."""
    count = check_count("num_samples", num_samples)
    return [Request(prompt, number) for prompt in check_prompts(prompts) for number in range(count)]


def batches_of(requests: Sequence[Request], at_once: int) -> Iterator[Sequence[Request]]:
    """Batches of at most `at_once` requests, in order; all stories of a batch change their prompts at the same times.

    Windows are split at these times. A split affects the last frames before it in the frames layout, so a request must
    not get the splits of another one.
    """
    for _, own in groupby(requests, lambda request: [second for second, _prompt in steps_of(request.prompt)]):
        group = list(own)
        yield from (group[first : first + at_once] for first in range(0, len(group), at_once))


class GenerationSession:
    """One batch of requests for `config.duration` seconds of new music.

    `stages` may lack those that are not needed. `clap_steps` are pairs of a time, in seconds of new music, and the CLAP
    tokens from then on; the first time is 0. `negative_tokens` are the negative prompt's CLAP tokens.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        stages: Mapping[StageName, StageGenerator],
        tokenizer: MusicTokenizer,
        requests: Sequence[Request],
        clap_steps: Sequence[tuple[float, Int[Tensor, "batch 1 quantizers"]]],
        config: GenerationConfig,
        progress: Progress | None = None,
        negative_tokens: Int[Tensor, "1 1 quantizers"] | None = None,
    ) -> None:
        self.model_config, self.stages, self.tokenizer = model_config, stages, tokenizer
        self.requests, self.clap_steps, self.config = list(requests), list(clap_steps), config
        self.clap_tokens = self.clap_steps[0][1]
        self.progress, self.negative_tokens = progress or Progress(), negative_tokens
        self.grid = TickGrid(model_config.token_grid)
        self.streams = token_streams(model_config)
        self.sample_hz = model_config.encodec_cfg.sample_hz
        self.samples = audio.samples_of(config.duration, self.sample_hz)
        self.new_ticks = self.grid.ticks(config.duration)
        self.window = {name: self.grid.ticks(model_config.window_seconds(name)) for name in STAGE_NAMES}

    def advance(self, name: StageName) -> int:
        """The ticks by which a stage advances over its window."""
        return advance(name, self.window[name], self.config.semantic_advance if name == "semantic" else None)

    def stream(self, audio_prompt: Sound | None = None) -> Iterator[Float[Tensor, "batch samples"]]:
        """Chunks of new music; an audio prompt comes first, and the new music continues it."""
        given = self.prompt_tokens(audio_prompt)
        yield from self.decode_stream(self.coarse_track(given), given, audio_prompt)

    def stream_from(
        self, given: PromptTokens, semantic: Int[Tensor, "batch time 1"], ticks: int
    ) -> Iterator[Float[Tensor, "batch samples"]]:
        """Chunks of new music that continues `given`. `semantic` has the semantic tokens of the first `ticks`, those of
        `given` included."""
        known = PromptTokens(ticks, {**given.tokens, "semantic": semantic})
        track = self._track("semantic", None, known, self._semantic_end(given))
        coarse = self._track("coarse", track, given, self._coarse_end(given))
        yield from self.decode_stream(coarse, given, None)

    def waves(self, audio_prompt: Sound | None = None) -> Float[Tensor, "batch samples"]:
        """All of `stream`, on the CPU."""
        return torch.cat([chunk.cpu() for chunk in self.stream(audio_prompt)], dim=1)

    def variations(self, sound: Sound, first_stage: StageName) -> Float[Tensor, "batch samples"]:
        """Variations of the sound, regenerated from `first_stage` on, on the CPU; see `MusicLM.vary`."""
        chunks = self.stream() if first_stage == "semantic" else self.regenerate(sound, first_stage)
        return torch.cat([chunk.cpu() for chunk in chunks], dim=1)

    def regenerate(self, sound: Sound, first_stage: StageName) -> Iterator[Float[Tensor, "batch samples"]]:
        """Chunks of the sound regenerated from the coarse or the fine stage on."""
        nothing, ticks = self.prompt_tokens(None), max(self.new_ticks, self.window["coarse"])
        tokens = SoundTokens(sound, ticks, self.grid, self.tokenizer, self.streams["coarse"].quantizers)
        coarse: Track
        if first_stage == "coarse":
            semantic = EncodedTrack(tokens.semantic, len(self.requests))
            coarse = self._track("coarse", semantic, nothing, self._coarse_end(nothing))
        else:  # the decoder must get the coarse tokens that the fine stage got
            frames = self.grid.first_frame(self.streams["coarse"], 1)
            coarse = EncodedBlocks(tokens.coarse, self.window["fine"], frames, len(self.requests))
        yield from self.decode_stream(coarse, nothing, None)

    def prompt_tokens(self, audio_prompt: Sound | None) -> PromptTokens:
        """The tokens of the last seconds of an audio prompt: the context of the first semantic window."""
        context = self.window["semantic"] - self.advance("semantic")
        ticks = 0 if audio_prompt is None else min(context, self.grid.whole_ticks(audio_prompt.seconds))
        if audio_prompt is None or ticks == 0:
            empty = {name: self.clap_tokens.new_zeros(1, 0, self.streams[name].quantizers) for name in STAGE_NAMES}
            return PromptTokens(0, empty)
        coarse = self.streams["coarse"].quantizers
        return encode_audio_prompt(audio_prompt, ticks, self.grid, self.tokenizer, coarse)

    def semantic_tokens(self, given: PromptTokens) -> Int[Tensor, "batch time 1"]:
        """The semantic tokens of the audio prompt and of all new music."""
        end = self._semantic_end(given)
        return self._track("semantic", None, given, end).tokens(0, end)

    def coarse_track(self, given: PromptTokens) -> GeneratedTrack:
        """The coarse tokens; they and the semantic tokens are generated on demand."""
        semantic = self._track("semantic", None, given, self._semantic_end(given))
        return self._track("coarse", semantic, given, self._coarse_end(given))

    def decode_stream(
        self, coarse: Track, given: PromptTokens, audio_prompt: Sound | None
    ) -> Iterator[Float[Tensor, "batch _"]]:
        """The audio prompt, if any, then chunks that add up to exactly `config.duration`, decoded from coarse and fine
        tokens, or from coarse tokens alone with `return_coarse_wave`.

        A chunk is as long as the fine stage's window; without a fine stage, as the coarse stage's advance.
        """
        tracks, end = [coarse], given.ticks + self.new_ticks
        chunk = self.advance("coarse")
        if "fine" in self.model_config.stage_names:
            chunk = self.window["fine"]
            if not self.config.return_coarse_wave:
                tracks.append(self._track("fine", coarse, given, end))
        if audio_prompt is not None:
            wave = audio.resampled(audio_prompt, self.sample_hz).to(self.clap_tokens.device)
            yield wave.expand(len(self.requests), -1)
        left, first = self.samples, given.ticks
        for start in range(given.ticks, end, chunk):
            stop = min(start + chunk, end)
            last = stop if stop == end else max(stop - self._lookahead_ticks, first)
            if last == first:
                continue  # the decoder needs later frames first
            sound = self.decode(tracks, first, last, stop)[:, :left]
            left, first = left - sound.shape[1], last
            yield sound

    def decode(self, tracks: Sequence[Track], start: int, end: int, known: int) -> Float[Tensor, "batch samples"]:
        """The sound of ticks [start, end), decoded from the tracks' tokens up to tick `known`."""
        first = max(start - self._warm_up_ticks, 0)
        tokens = torch.cat([track.tokens(first, known) for track in tracks], dim=-1)
        wave, tick = self.tokenizer.codec.decode(tokens), round(self.sample_hz * self.grid.seconds_per_tick)
        return wave[:, (start - first) * tick : (end - first) * tick]

    @property
    def _lookahead_ticks(self) -> int:
        """How much later sound the decoder needs, in ticks."""
        return self._ticks_of(self.tokenizer.codec.lookahead_frames)

    @property
    def _warm_up_ticks(self) -> int:
        settled = self.grid.ticks(DECODER_WARM_UP_SECONDS)
        return max(settled, self._ticks_of(self.tokenizer.codec.context_frames))

    def _ticks_of(self, codec_frames: int) -> int:
        return self.grid.ticks(codec_frames * self.tokenizer.codec.hop / self.sample_hz)

    # Earlier stages generate at least to the end of the next stage's window, so that its conditioning is complete.
    def _coarse_end(self, given: PromptTokens) -> int:
        end = given.ticks + self.new_ticks
        return max(end, self.window["fine"]) if "fine" in self.model_config.stage_names else end

    def _semantic_end(self, given: PromptTokens) -> int:
        return max(self._coarse_end(given), self.window["coarse"])

    def _track(
        self,
        name: StageName,
        source: Track | None,
        given: PromptTokens,
        end: int,
    ) -> GeneratedTrack:
        """A stage's tokens up to tick `end`. Raises UserError if the stage is not loaded."""
        if name not in self.stages:
            raise UserError(f"the {name} stage is not loaded, but this generation config needs it")
        length = self.window[name]
        windows = plan_windows(given.ticks, end, length, length - self.advance(name))
        self.progress.begin(name, float(self.grid.seconds(max(end - given.ticks, 0))))
        rngs = [sample_rng(self.config.seed, str(request.prompt), request.number, name) for request in self.requests]
        negative = None if self.negative_tokens is None else self.negative_tokens.expand_as(self.clap_tokens)
        starts = [given.ticks + self.grid.ticks(second) for second, _ in self.clap_steps]
        clap = ClapTrack(starts, [tokens for _, tokens in self.clap_steps])
        inputs = StageInputs(sampling_of(self.config, name), rngs, clap, source, length, negative)
        tokens: Tokens = given.tokens[name].expand(len(self.requests), -1, -1)
        return GeneratedTrack(self.stages[name], inputs, self.grid, windows, tokens, self.progress)
