"""Evaluates a stage in training by what it generates: CLAP score and FAD of validation examples."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig
from open_musiclm.errors import UserError
from open_musiclm.evaluation.embeddings import frechet_windows
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling, sample_rng
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.metrics.adherence import cosines
from open_musiclm.metrics.frechet import frechet_distance
from open_musiclm.models.stages import Ids, Stage, load_stage
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.tokens import token_streams
from open_musiclm.training.stage_examples import acoustic_ids


@dataclass(frozen=True)
class _Sounds:
    """A set of sounds: one embedding of each, and those of its windows that the Fréchet distance takes."""

    embedder: ClapEmbedder
    whole: list[Float[Tensor, "batch dim"]] = field(default_factory=list)
    windows: list[Float[Tensor, "windows dim"]] = field(default_factory=list)

    def add(self, waves: Float[Tensor, "batch samples"]) -> None:
        clap, own_hz = self.embedder.clap, self.embedder.sample_hz
        self.whole.append(self.embedder.embed_waves(waves).cpu())
        resampled = [audio.resampled(Sound(wave, own_hz), clap.sample_hz) for wave in waves]
        self.windows.extend(frechet_windows(clap, wave).cpu() for wave in resampled)


@dataclass(frozen=True)
class StageEvaluator:
    """Generates the last sequence of `samples` examples from the others, sampled and not teacher-forced, and embeds the
    sound by the model's own CLAP. A semantic stage has a `coarse` stage that turns its tokens into sound."""

    model_config: ModelConfig
    embedder: ClapEmbedder
    quantizer: ClapQuantizer
    codec: Codec
    coarse: StageGenerator | None
    samples: int
    seed: int

    @classmethod
    def load(
        cls, model_config: ModelConfig, config: StageTrainerConfig, rvq_path: Path, device: torch.device
    ) -> "StageEvaluator":
        """The evaluator of a trainer's section. Raises UserError."""
        coarse = None
        if config.stage == "semantic":
            assert config.evaluate_coarse_path is not None
            coarse = stage_generator(load_stage(Path(config.evaluate_coarse_path), "coarse", model_config, device))
        quantizer = ClapQuantizer.load(rvq_path, model_config, device)
        codec = Codec.load(model_config, device)
        codec.check_decodes(model_config.quantizers_up_to(config.stage), f"{config.stage}_trainer_cfg: evaluate_every")
        clap = Clap.load(model_config, device)
        embedder = ClapEmbedder(clap, model_config.global_cfg.clap_audio_length_seconds, codec.sample_hz)
        return cls(
            model_config, embedder, quantizer, codec, coarse, config.evaluate_samples, config.seed
        )  # fmt: skip

    def evaluate(self, stage: Stage, batches: Iterable[list[Ids]]) -> dict[str, float]:
        """`clap_score`: the mean cosine of a generated sound and the embedding that its CLAP tokens decode to.
        `clap_score_of_true`: the same of the examples' own tokens. `fad`: the Fréchet distance between both sets, as
        scripts/evaluate.py measures it, biased upwards as in every small set.

        Raises UserError if there are fewer than two examples.
        """
        generator, left = stage_generator(stage), self.samples
        generated, true, wanted = _Sounds(self.embedder), _Sounds(self.embedder), []
        for ids in batches:
            own = [sequence[:left] for sequence in ids]
            number = self.samples - left
            left -= len(own[0])
            generated.add(self._waves(stage, [*own[:-1], self._generate(generator, own, number)], number))
            true.add(self._waves(stage, own, number))
            wanted.append(self.quantizer.decode(own[0][:, 0]).cpu())
            if left == 0:
                break
        asked = torch.cat(wanted) if wanted else torch.zeros(0)
        if len(asked) < 2:
            raise UserError("evaluate_every: the validation set has fewer than two examples in this process")
        return {
            "clap_score": float(cosines(torch.cat(generated.whole), asked).mean()),
            "clap_score_of_true": float(cosines(torch.cat(true.whole), asked).mean()),
            "fad": frechet_distance(torch.cat(generated.windows), torch.cat(true.windows)),
        }

    def _generate(self, generator: StageGenerator, ids: list[Ids], number: int) -> Ids:
        """The last sequence, sampled at temperature 1 from the others; `number` is that of the batch's first."""
        rngs = self._rngs(generator.name, len(ids[0]), number)
        empty, frames = ids[-1][:, :0], ids[-1].shape[1]
        return generator.generate(ids[:-1], empty, frames, Sampling(), rngs, lambda: None)

    def _rngs(self, name: StageName, count: int, number: int) -> list[torch.Generator]:
        """Those of `count` samples from sample `number` on: no sample depends on the batch."""
        return [sample_rng(self.seed, "", number + place, name) for place in range(count)]

    def _waves(self, stage: Stage, ids: list[Ids], number: int) -> Float[Tensor, "batch samples"]:
        acoustic = acoustic_ids(stage.sequences, ids)
        return self.codec.decode(self._coarse(ids, number) if acoustic is None else acoustic)

    def _coarse(self, ids: list[Ids], number: int) -> Int[Tensor, "batch time quantizers"]:
        """Coarse tokens for the beginning of semantic ones, as much as the coarse stage's window."""
        assert self.coarse is not None
        streams, seconds = token_streams(self.model_config), self.model_config.window_seconds("coarse")
        clap, semantic = ids
        conditioning = [clap, semantic[:, : streams["semantic"].frames(seconds)]]
        rngs = self._rngs("coarse", len(clap), number)
        empty = clap.new_zeros(len(clap), 0, streams["coarse"].quantizers)
        frames = streams["coarse"].frames(seconds)
        return self.coarse.generate(conditioning, empty, frames, Sampling(), rngs, lambda: None)
