"""One batch of music in the making: three tracks of tokens, each pulled window by window by the next.

The order of the walk is the other way round from the prompt's: the decoder asks for fine tokens, those for
coarse ones, those for semantic ones; so sound comes out as soon as it can, and nothing is made too early.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import ModelConfig, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.planner import (
    STEP_FRACTION,
    GeneratedTrack,
    HeardTrack,
    Ids,
    Track,
    Window,
    acoustic_rate,
    plan_steps,
    plan_windows,
    semantic_rate,
    ticks_in,
)
from open_musiclm.generation.sampling import Sampling, sample_stream
from open_musiclm.generation.stage_generator import StageGenerator
from open_musiclm.models.stages import STAGE_NAMES
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

# Sound before a chunk that the codec decodes again, so that its LSTM has settled where the chunk begins.
DECODER_WARM_UP_SECONDS = 1.0


class Progress:
    """Is told how much music each stage has made; this one keeps it to itself."""

    def begin(self, stage: str, seconds: float) -> None:
        """A stage has `seconds` of music before it."""

    def advance(self, stage: str, seconds: float) -> None:
        """It has made `seconds` more."""


@dataclass(frozen=True)
class Options:
    """How to generate: the seed, how each stage samples, and whether the fine stage is left out."""

    seed: int = 0
    sampling: Mapping[StageName, Sampling] = field(default_factory=dict)
    coarse_wave_only: bool = False
    max_batch_size: int = 16


@dataclass(frozen=True)
class Row:
    """One sample of one prompt: what its random streams depend on, besides the seed."""

    prompt: str
    number: int


def rows_of(prompts: str | Sequence[str], num_samples: int) -> list[Row]:
    """All samples of the first prompt, then of the next. Raises UserError."""
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if num_samples < 1:
        raise UserError(f"num_samples {num_samples}: expected at least 1")
    if not prompts or any(not prompt.strip() for prompt in prompts):
        raise UserError("a prompt is empty; describe the music in a few words")
    return [Row(prompt, number) for prompt in prompts for number in range(num_samples)]


@dataclass(frozen=True)
class Known:
    """What is there already of a piece, the same for every row: so many ticks, and each stage's ids of them."""

    ticks: int
    ids: Mapping[StageName, Int[Tensor, "1 _ quantizers"]]


@dataclass(frozen=True)
class Parts:
    """What music is made with; `stages` may lack those that are not asked for."""

    config: ModelConfig
    stages: Mapping[StageName, StageGenerator]
    tokenizer: MusicTokenizer


class Piece:
    """One batch of music in the making: its tracks, all counted in ticks from the same instant."""

    def __init__(
        self,
        parts: Parts,
        rows: list[Row],
        clap_ids: Int[Tensor, "batch 1 quantizers"],
        duration: float,
        options: Options,
        progress: Progress,
    ) -> None:
        self.config, self.stages, self.tokenizer = parts.config, parts.stages, parts.tokenizer
        self.sample_hz = parts.config.encodec_cfg.sample_hz
        self.rows = rows
        self.clap_ids = clap_ids
        self.samples = audio.samples_of(duration, self.sample_hz)
        self.options = options
        self.progress = progress
        self.new_ticks = ticks_in(duration, self.config)
        self.window = {name: ticks_in(self.config.window_seconds(name), self.config) for name in STAGE_NAMES}

    def from_nothing(self) -> Iterator[Float[Tensor, "batch samples"]]:
        """A new piece."""
        coarse, fine = self._tracks(self.known(None))
        return self._sound(coarse, fine, known=0)

    def continuing(self, given: Sound) -> Iterator[Float[Tensor, "batch samples"]]:
        """The given sound, then new music whose context are its last seconds."""
        known = self.known(given)
        yield self._given_wave(given)
        coarse, fine = self._tracks(known)
        yield from self._sound(coarse, fine, known.ticks)

    def sketches(self, known: Known) -> Ids:
        """Semantic tokens of all that is known and all that is new."""
        total = self._semantic_total(known)
        return self._track("semantic", None, known, total).between(0, total)

    def semantic_steps(self, ticks: int) -> int:
        """The semantic time steps of the first `ticks`."""
        return semantic_rate(self.config).per_tick * ticks

    def drafts(self, known: Known, sketches: Ids | None) -> tuple[GeneratedTrack, GeneratedTrack]:
        """Semantic and coarse tokens to choose among.

        The semantic ones are `sketches`, or else none is made before a coarse window needs it.
        """
        total = self._semantic_total(known)
        if sketches is not None:
            semantic = GeneratedTrack(semantic_rate(self.config), [], sketches, _complete)
        else:
            steps = plan_steps(known.ticks, total, self.window["semantic"], self._step("coarse"))
            semantic = self._track("semantic", None, known, total, steps)
        return semantic, self._track("coarse", semantic, known, self._coarse_total(known))

    def finishing(
        self, coarse: GeneratedTrack, known: Known, given: Sound | None
    ) -> Iterator[Float[Tensor, "batch _"]]:
        """The given sound, if any, then music with the coarse tokens that are there."""
        if given is not None:
            yield self._given_wave(given)
        yield from self._sound(coarse, self._fine_track(coarse, known), known.ticks)

    def regenerating(self, given: Sound, first_stage: StageName) -> Iterator[Float[Tensor, "batch samples"]]:
        """The given sound made anew from `first_stage` on; it is repeated up to the last window's end."""
        ticks = max(self.new_ticks, self.window["coarse"])
        semantic_hz, acoustic_hz = self.tokenizer.semantic.mert.sample_hz, self.sample_hz
        semantic_wave = self._repeated(self._normalized(given), ticks, semantic_hz)
        acoustic_wave = self._repeated(audio.resampled(given, acoustic_hz), ticks, acoustic_hz)

        def semantic_between(start: int, end: int) -> Ids:
            return self.tokenizer.semantic_ids(self._stretch(semantic_wave, start, end, semantic_hz))

        def coarse_between(start: int, end: int) -> Ids:
            acoustic = self.tokenizer.acoustic_ids(self._stretch(acoustic_wave, start, end, acoustic_hz))
            return acoustic[..., : self.config.global_cfg.num_coarse_quantizers]

        nothing = self.known(None)
        coarse: Track = HeardTrack(coarse_between)
        if first_stage == "coarse":
            total = max(self.new_ticks, self.window["fine"])
            coarse = self._track("coarse", HeardTrack(semantic_between), nothing, total)
        return self._sound(coarse, self._fine_track(coarse, nothing), known=0)

    def _tracks(self, known: Known) -> tuple[Track, Track | None]:
        """The coarse and the fine track over the ticks known and new."""
        semantic = self._track("semantic", None, known, self._semantic_total(known))
        coarse = self._track("coarse", semantic, known, self._coarse_total(known))
        return coarse, self._fine_track(coarse, known)

    def _fine_track(self, coarse: Track, known: Known) -> Track | None:
        if self.options.coarse_wave_only:
            return None
        return self._track("fine", coarse, known, known.ticks + self.new_ticks)

    # Earlier stages go on at least to the end of the next one's window: its conditioning is always whole.
    def _coarse_total(self, known: Known) -> int:
        return max(known.ticks + self.new_ticks, self.window["fine"])

    def _semantic_total(self, known: Known) -> int:
        return max(self._coarse_total(known), self.window["coarse"])

    def _track(
        self, name: StageName, source: Track | None, known: Known, total: int, windows: list[Window] | None = None
    ) -> GeneratedTrack:
        """One stage's tokens up to `total` ticks, in `windows` or else in those that its step gives."""
        stage, config = self.stages[name], self.config
        length = self.window[name]
        rate = semantic_rate(config) if name == "semantic" else acoustic_rate(config)
        streams = [sample_stream(self.options.seed, row.prompt, row.number, name) for row in self.rows]
        sampling = self.options.sampling.get(name, stage.default_sampling)
        seconds_per_step = float(config.token_grid) / rate.per_tick
        self.progress.begin(name, float((total - known.ticks) * config.token_grid))

        def advanced(steps: int) -> None:
            self.progress.advance(name, steps * seconds_per_step)

        def extend(window: Window, context: Ids, steps: int) -> Ids:
            conditioning = [self.clap_ids]
            if source is not None:
                conditioning.append(source.between(window.start, window.start + length))
            return stage.generate(conditioning, context, steps, sampling, streams, advanced)

        if windows is None:
            windows = plan_windows(known.ticks, total, length, length - self._step(name))
        return GeneratedTrack(rate, windows, known.ids[name].expand(len(self.rows), -1, -1), extend)

    def _sound(self, coarse: Track, fine: Track | None, known: int) -> Iterator[Float[Tensor, "batch samples"]]:
        """Decodes the new ticks chunk by chunk, exactly as many samples as were asked for."""
        left = self.samples
        for start in range(known, known + self.new_ticks, self.window["fine"]):
            end = min(start + self.window["fine"], known + self.new_ticks)
            # Asking for the new ticks first lets every stage run only as far as this chunk needs.
            sound = self.decoded([coarse] if fine is None else [coarse, fine], start, end)[:, :left]
            left -= sound.shape[1]
            yield sound

    def decoded(self, tracks: Sequence[Track], start: int, end: int) -> Float[Tensor, "batch samples"]:
        """The sound of ticks [start, end) from tracks of the first codebooks on."""
        first = max(start - ticks_in(DECODER_WARM_UP_SECONDS, self.config), 0)
        ids = torch.cat([track.between(first, end) for track in tracks], dim=-1)
        frames = (end - first) * acoustic_rate(self.config).per_tick
        wave = self.tokenizer.codec.decode(ids[:, :frames])
        return wave[:, (start - first) * round(self.sample_hz * self.config.token_grid) :]

    def known(self, given: Sound | None) -> Known:
        """The tokens of a given sound's last seconds, as many as leave the semantic window its step."""
        context = self.window["semantic"] - self._step("semantic")
        ticks = 0 if given is None else min(context, int(given.seconds / self.config.token_grid + 1e-6))
        if given is None or ticks == 0:
            quantizers = {name: stage.predicted.quantizers for name, stage in self.stages.items()}
            return Known(0, {name: self.clap_ids.new_zeros(1, 0, count) for name, count in quantizers.items()})
        seconds = float(ticks * self.config.token_grid)
        semantic_samples = audio.samples_of(seconds, self.tokenizer.semantic.mert.sample_hz)
        semantic = self.tokenizer.semantic_ids(self._normalized(given)[-semantic_samples:].unsqueeze(0))
        acoustic_samples = audio.samples_of(seconds, self.sample_hz)
        wave = audio.resampled(given, self.sample_hz).to(self.clap_ids.device)
        acoustic = self.tokenizer.acoustic_ids(wave[-acoustic_samples:].unsqueeze(0))
        coarse = self.config.global_cfg.num_coarse_quantizers
        return Known(ticks, {"semantic": semantic, "coarse": acoustic[..., :coarse], "fine": acoustic[..., coarse:]})

    def _given_wave(self, given: Sound) -> Float[Tensor, "batch samples"]:
        return audio.resampled(given, self.sample_hz).to(self.clap_ids.device).expand(len(self.rows), -1)

    def _step(self, name: StageName) -> int:
        return max(int(self.window[name] * STEP_FRACTION[name]), 1)

    def _normalized(self, given: Sound) -> Float[Tensor, "samples"]:
        """MERT's input: normalised over the whole given sound, then resampled."""
        normalized = audio.normalize(given.wave, audio.statistics_of(given.wave))
        return audio.resampled(Sound(normalized, given.sample_hz), self.tokenizer.semantic.mert.sample_hz).to(
            self.clap_ids.device
        )

    def _repeated(self, wave: Float[Tensor, "samples"], ticks: int, sample_hz: int) -> Float[Tensor, "repeated"]:
        seconds = float(ticks * self.config.token_grid)
        return audio.repeat_to(wave, audio.samples_of(seconds, sample_hz)).to(self.clap_ids.device)

    def _stretch(
        self, wave: Float[Tensor, "samples"], start: int, end: int, sample_hz: int
    ) -> Float[Tensor, "1 stretch"]:
        """The samples of ticks [start, end)."""
        per_tick = self.config.token_grid * sample_hz
        return wave[None, round(start * per_tick) : round(end * per_tick)]


def _complete(window: Window, context: Ids, steps: int) -> Ids:
    """How a track goes on that is there as a whole."""
    raise AssertionError(f"{steps} steps were wanted of {window}")
