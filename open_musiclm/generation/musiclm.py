"""The whole model: from prompts, or a given sound, to sound.

A prompt passes CLAP's text tower, the residual VQ, then a generation session of three stages and the codec's decoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.audio import Sound
from open_musiclm.config import STAGE_NAMES, GenerationConfig, ModelConfig, Precision, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.checks import (
    check_config,
    check_count,
    check_segment,
    check_sound,
    check_stages,
)
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import sampling_of
from open_musiclm.generation.edit_options import DEFAULT_CANDIDATES
from open_musiclm.generation.infilling import Infilled, Infilling
from open_musiclm.generation.loading import load_parts, needed_stages, open_paths
from open_musiclm.generation.paths import AdapterPath, ModelPaths
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.prompts.prompt_checks import (
    SHORTEST_STYLE_SECONDS,
    check_steady_prompts,
    check_stories,
    named_sound,
)
from open_musiclm.generation.prompts.prompt_embedder import PromptEmbedder
from open_musiclm.generation.prompts.prompting import Mixture, Prompt, SteadyPrompt
from open_musiclm.generation.prompts.story import AnyPrompt, steps_of
from open_musiclm.generation.session import GenerationSession, Request, batches_of, requests_of
from open_musiclm.generation.tracks import tokens_along
from open_musiclm.models.stages import Stage
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer


class MusicLM:
    """The three stages and the tokenizers around them.

    `stages` may lack those that are not needed. `generate` and `stream` use `generation_config` by default; the stages'
    weights have its precision. `sample_hz` is the sample rate of all waves.
    """

    def __init__(
        self,
        config: ModelConfig,
        stages: Mapping[StageName, Stage],
        tokenizer: MusicTokenizer,
        generation_config: GenerationConfig | None = None,
    ) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.generation_config = generation_config or GenerationConfig()
        dtype = getattr(torch, self.generation_config.precision)
        self.stages = {name: stage_generator(stage, dtype) for name, stage in stages.items()}
        self.sample_hz = config.encodec_cfg.sample_hz
        self.embedder = ClapEmbedder(tokenizer.clap, config.global_cfg.clap_audio_length_seconds, self.sample_hz)
        self.prompt_embedder = PromptEmbedder(self.embedder)
        self.corrected_embedder = PromptEmbedder(self.embedder, tokenizer.text_correction)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        precision: Precision | None = None,
        trust_remote_code: bool = False,
        adapters: Sequence[AdapterPath] | None = None,
    ) -> "MusicLM":
        """The model of a bundle: its folder, or the id of one on the hub.

        Defaults: the best `device` of this machine, the `precision` of the bundle's generation config, and the
        `adapters` of the bundle (an empty list: none). Python code that comes with its MERT runs only with
        `trust_remote_code`. Raises UserError.
        """
        paths, generation_config = open_paths(ModelPaths(bundle=str(name), adapters=adapters))
        if precision is not None:
            generation_config = generation_config.updated({"precision": precision})
        config = paths.read_model_config()
        on = None if device is None else str(device)
        parts = load_parts(paths, config, config.stage_names, on, trust_remote_code)
        return cls(config, *parts, generation_config)

    def generate(
        self,
        prompts: AnyPrompt | Sequence[AnyPrompt],
        duration: float | None = None,
        num_samples: int = 1,
        config: GenerationConfig | None = None,
        audio_prompt: Sound | None = None,
        progress: Progress | None = None,
    ) -> list[Float[Tensor, "samples"]]:
        """Waves of exactly `duration` seconds at `sample_hz`: all samples of the first prompt, then of the next.

        A prompt is a text, a `Prompt` of text, sound or both, a `Mixture` of several, or a `Story` of several in turn.
        Every item of a list is a prompt of its own: `[Prompt("a"), Prompt("b")]` gives two waves, and
        `Mixture([Prompt("a"), Prompt("b")])` one.
        With an audio prompt each wave is that sound and then `duration` seconds of new music. Samples are not ranked
        (see `generation/search.py`). Raises UserError for a bad duration, prompt or number.
        """
        settings = check_config(config, duration, self.generation_config)
        sessions = self.sessions(requests_of(prompts, num_samples), settings, audio_prompt, progress)
        return [wave for session in sessions for wave in session.waves(audio_prompt)]

    def stream(
        self,
        prompts: AnyPrompt | Sequence[AnyPrompt],
        duration: float | None = None,
        num_samples: int = 1,
        config: GenerationConfig | None = None,
        audio_prompt: Sound | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Float[Tensor, "batch samples"]]]:
        """Yields (number of the batch, next chunk of all its samples), window by window; see `generate`."""
        settings = check_config(config, duration, self.generation_config)
        sessions = self.sessions(requests_of(prompts, num_samples), settings, audio_prompt, progress)
        return ((number, chunk) for number, session in enumerate(sessions) for chunk in session.stream(audio_prompt))

    def sessions(
        self,
        requests: Sequence[Request],
        config: GenerationConfig,
        audio_prompt: Sound | None,
        progress: Progress | None,
    ) -> Iterator[GenerationSession]:
        """A session for every batch of requests (see `batches_of`); everything is checked at once. Raises UserError."""
        if audio_prompt is not None:
            check_sound("audio_prompt", audio_prompt)
        if progress is not None and not isinstance(progress, Progress):
            raise UserError(f"progress: expected a Progress, found {type(progress).__name__}")
        self._check_stages(config, "semantic")
        check_stories([request.prompt for request in requests], config.duration)
        batches = batches_of(requests, config.max_batch_size)
        return (self.session(batch, config, progress) for batch in batches)

    def session(
        self,
        requests: Sequence[Request],
        config: GenerationConfig,
        progress: Progress | None = None,
        clap_tokens: Int[Tensor, "batch 1 quantizers"] | None = None,
    ) -> GenerationSession:
        """A session of one batch of requests; their CLAP tokens are those of their prompts unless given.

        Raises UserError if a story is longer than the music.
        """
        check_stories([request.prompt for request in requests], config.duration)
        steps = self._clap_steps(requests) if clap_tokens is None else [(0.0, clap_tokens)]
        negative = None if config.negative_prompt is None else self.clap_tokens([config.negative_prompt])
        return GenerationSession(self.config, self.stages, self.tokenizer, requests, steps, config, progress, negative)

    def vary(
        self,
        sound: Sound,
        first_stage: StageName = "semantic",
        num_samples: int = 1,
        name: str = "sound",
        config: GenerationConfig | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Float[Tensor, "samples"]]:
        """Yields variations of a sound, of its length: regenerated from `first_stage` on, with its own earlier tokens.

        From the semantic stage on, only its CLAP tokens are kept. The random numbers depend on `name` (of its file),
        the seed and the number of the sample. Raises UserError.
        """
        check_sound(name, sound)
        config = check_config(config, sound.seconds, self.generation_config)
        requests = [Request(name, number) for number in range(check_count("num_samples", num_samples))]
        if first_stage not in STAGE_NAMES:
            raise UserError(f"first_stage {first_stage!r}: expected one of {', '.join(STAGE_NAMES)}")
        self._check_stages(config, first_stage)
        config = variation_config(config, first_stage, sound.seconds)
        clap = self.tokenizer.quantizer.encode(self.embed_sound(sound).unsqueeze(0)).unsqueeze(1)
        sessions = (
            self.session(batch, config, progress, clap.expand(len(batch), -1, -1))
            for batch in batches_of(requests, config.max_batch_size)
        )
        return (wave for session in sessions for wave in session.variations(sound, first_stage))

    def infill(
        self,
        sound: Sound,
        start: float,
        end: float,
        prompt: SteadyPrompt | None = None,
        num_candidates: int = DEFAULT_CANDIDATES,
        config: GenerationConfig | None = None,
        progress: Progress | None = None,
    ) -> Infilled:
        """A sound with regenerated seconds from `start` to `end`, by default in the style of the sound around them.

        The best of `num_candidates` is kept, see `generation/infilling.py`. Raises UserError.
        """
        config = check_config(config, None, self.generation_config)
        check_sound("sound", sound)
        check_segment(sound, start, end)
        count = check_count("num_candidates", num_candidates)
        self._check_stages(config, "semantic")
        infilling = Infilling(self.config, self.tokenizer, sound, start, end, config.semantic_advance)
        (name,) = [""] if prompt is None else check_steady_prompts([prompt])
        clap = self._style_around(sound, start, end) if prompt is None else self.clap_tokens([name])
        settings = config.updated({"duration": infilling.new_seconds})

        def session(numbers: Sequence[int]) -> GenerationSession:
            requests = [Request(name, number) for number in numbers]
            return self.session(requests, settings, progress, clap.expand(len(requests), -1, -1))

        return infilling.best_of(count, config.max_batch_size, session)

    def _check_stages(self, config: GenerationConfig, first_stage: StageName) -> None:
        """Raises UserError if a stage that is needed from `first_stage` on is missing, or cannot sample as the config
        says, or if what the last one makes cannot be decoded."""
        needed = needed_stages(self.config, config, first_stage)
        check_stages(needed, self.stages)
        for name in needed:
            self.stages[name].check(sampling_of(config, name))
        self.tokenizer.codec.check_decodes(self.config.quantizers_up_to(needed[-1]), "return_coarse_wave")

    def _style_around(self, sound: Sound, start: float, end: float) -> Int[Tensor, "1 1 quantizers"]:
        """The CLAP tokens of the sound before and after these seconds, half of CLAP's window of each; of the whole
        sound if nothing else is there."""
        half = self.config.global_cfg.clap_audio_length_seconds / 2
        parts = []
        for begin, stop in ((max(start - half, 0), start), (end, min(end + half, sound.seconds))):
            wave = sound.wave[round(begin * sound.sample_hz) : round(stop * sound.sample_hz)]
            if stop - begin >= SHORTEST_STYLE_SECONDS:
                parts.append(Prompt(audio=named_sound(Sound(wave, sound.sample_hz)), weight=stop - begin))
        return self.clap_tokens([Mixture(parts or [Prompt(audio=named_sound(sound))])])

    def clap_tokens(self, prompts: Sequence[SteadyPrompt]) -> Int[Tensor, "batch 1 quantizers"]:
        """CLAP tokens of prompts, whose texts the bundle may correct. Raises UserError."""
        embeddings = self.corrected_embedder.embed(check_steady_prompts(prompts))
        return self.tokenizer.quantizer.encode(embeddings).unsqueeze(1)

    def _clap_steps(self, requests: Sequence[Request]) -> list[tuple[float, Int[Tensor, "batch 1 quantizers"]]]:
        """The CLAP tokens of a batch, each with the second that it starts at."""
        steps = [steps_of(request.prompt) for request in requests]
        tokens = iter(self.clap_tokens([prompt for own in steps for _, prompt in own]))
        return tokens_along([[(start, next(tokens)) for start, _ in own] for own in steps])

    def embed_prompts(self, prompts: Sequence[SteadyPrompt]) -> Float[Tensor, "batch dim"]:
        """CLAP embeddings of prompts, of length 1; each text and each sound is embedded once. Raises UserError."""
        return self.prompt_embedder.embed(check_steady_prompts(prompts))

    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """CLAP embeddings of prompts, of length 1; each text is embedded once."""
        return self.embedder.embed_text(prompts)

    def embed_sound(self, sound: Sound) -> Float[Tensor, "dim"]:
        """The CLAP embedding of a sound: the mean over its windows, of length 1. Raises UserError."""
        return self.embedder.embed_sound(check_sound("sound", sound))

    def embed_waves(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """CLAP embeddings of waves at `sample_hz`, as `embed_sound`, in batches."""
        return self.embedder.embed_waves(waves)


def variation_config(config: GenerationConfig, first_stage: StageName, seconds: float) -> GenerationConfig:
    """The config that a sound of `seconds` is regenerated with from `first_stage` on."""
    changes = {"duration": seconds} | ({"return_coarse_wave": False} if first_stage == "fine" else {})
    return config.updated(changes)
