"""What the trainers of the three stages share: tokens out of a batch, the loss, validation, samples, weights."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from open_musiclm.audio import write_wave
from open_musiclm.checkpoints import load_into, load_weights, save_weights, weights_name
from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig
from open_musiclm.data.crops import Crop, tokenizer_crop
from open_musiclm.data.example_order import random_generator
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.devices import products_in
from open_musiclm.errors import UserError
from open_musiclm.models.example_rng import Seeds
from open_musiclm.models.stages import Ids, Stage, StageLoss
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.means import Means
from open_musiclm.training.optimization import Optimization, OptimizerSettings
from open_musiclm.training.schedule import Schedule
from open_musiclm.training.sharding import is_sharded, laid_out_like, whole
from open_musiclm.training.trainer import Drawn, Learned, Resumable, Trainer

SAMPLES_WRITTEN = 4


@dataclass(frozen=True)
class StageTools:
    """What a stage's trainer takes beside the stage: the tokenizers where batches are sound, None where they are
    tokens; the codec where waves are wanted."""

    model_config: ModelConfig
    tokenizer: MusicTokenizer | None
    codec: Codec | None


class StageTrainer(Trainer[SoundBatch | list[Ids]]):
    """Trains a stage on batches of sound, or of tokens in the order of the stage's sequences."""

    name: StageName

    def __init__(self, accelerator: Accelerator, stage: Stage, tools: StageTools, config: StageTrainerConfig) -> None:
        self.accelerator, self.tools, self.config = accelerator, tools, config
        self.batches_per_step = config.grad_accum_every
        transformer = stage.decoder.transformer
        transformer.gradient_checkpointing = config.gradient_checkpointing
        if config.compile:
            if accelerator.device.type == "cpu":  # seen with torch 2.11: a segmentation fault
                raise UserError(
                    f"{self.name}_trainer_cfg: compile: torch's compiler crashes on a CPU here; set it false"
                )
            transformer.compile_blocks()
        settings = OptimizerSettings(
            Schedule(config.lr, config.lr_warmup, config.constant_share, config.num_train_steps),
            config.wd,
            config.max_grad_norm,
        )
        self.optimization = Optimization(accelerator, stage.to(accelerator.device), settings)

    @classmethod
    @abstractmethod
    def crops(cls, config: ModelConfig) -> list[Crop]:
        """What is cut out of a sound file for one example."""

    @abstractmethod
    def tokenize(self, waves: Mapping[str, Float[Tensor, "batch _"]], tokenizer: MusicTokenizer) -> list[Ids]:
        """The stage's token sequences of the waves of `crops`."""

    def acoustic_ids(
        self, ids: list[Ids], last: Int[Tensor, "batch time _"]
    ) -> Int[Tensor, "batch time quantizers"] | None:
        """The codec's tokens when `last` takes the place of the last sequence; None for a stage without any."""
        return None

    @property
    def stage(self) -> Stage:
        """The stage in training."""
        plain = self.optimization.plain_module
        assert isinstance(plain, Stage)
        return plain

    def learn(self, batches: Iterator[Drawn[SoundBatch | list[Ids]]], step: int) -> Learned:
        """One optimizer step on the mean loss of the batches."""
        self.stage.train()
        tokens, accuracies = 0, []
        for drawn in batches:
            ids = self._ids(drawn.batch)
            with self.accelerator.accumulate(self.optimization.module):
                result = self._run(self.optimization.module, ids, self._seeds(drawn.draws))
                self.optimization.backward(result.loss)
            accuracies.append(result.accuracy)
            tokens += sum(sequence.numel() for sequence in ids)
        update = self.optimization.update(step)
        accuracy = self.accelerator.reduce(torch.stack(accuracies).mean(), reduction="mean").item()
        metrics = {
            "accuracy": accuracy,
            "learning_rate": update.learning_rate,
            "gradient_norm": update.gradient_norm,
        }
        return Learned(update.loss, tokens, metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[Drawn[SoundBatch | list[Ids]]]) -> Mapping[str, float]:
        """Loss and accuracy over the examples of all processes."""
        stage = self.stage.eval()
        means, batches_here = Means(self.accelerator, ("loss", "accuracy")), 0
        for drawn in batches:
            ids = self._ids(drawn.batch)
            result = self._run(stage, ids)
            means.add((result.loss, result.accuracy), ids[0].shape[0])
            batches_here += 1
        if is_sharded(stage):
            own = torch.tensor([batches_here], device=self.accelerator.device)
            for _ in range(int(self.accelerator.gather(own).max()) - batches_here):
                self._run(stage, self._placeholder())
        return means.over_all()

    @torch.no_grad()
    def write_samples(self, batch: SoundBatch | list[Ids], folder: Path) -> list[Path]:
        """Teacher-forced likeliest tokens of a batch beside the true ones, and both as waves."""
        ids = [sequence[:SAMPLES_WRITTEN] for sequence in self._ids(batch)]
        predicted = self._run(self.stage.eval(), ids).predicted_ids
        folder.mkdir(parents=True, exist_ok=True)
        if self.config.save_predicted_tokens:
            tokens = {"predicted": predicted, "true": ids[-1]}
            save_file({name: x.cpu().contiguous() for name, x in tokens.items()}, folder / "tokens.safetensors")
        codec = self.tools.codec
        if not self.config.save_reconstructed_wave or codec is None:
            return []
        paths = []
        for name, last in (("predicted", predicted), ("true", ids[-1])):
            acoustic = self.acoustic_ids(ids, last)
            if acoustic is None:
                continue
            for number, wave in enumerate(codec.decode(acoustic)):
                paths.append(folder / f"{number}_{name}.wav")
                write_wave(paths[-1], wave, codec.sample_hz)
        return paths

    @torch.no_grad()
    def accompany_samples(self) -> None:
        """Sharded weights come together only where all processes run the stage."""
        if is_sharded(self.stage):
            self._run(self.stage.eval(), self._placeholder())

    def write_weights(self, folder: Path) -> None:
        """{stage}.safetensors, as inference reads it."""
        tensors = whole(self.stage.decoder.state_dict())
        if self.accelerator.is_main_process:
            save_weights(folder / weights_name(self.name), self.name, tensors, self.tools.model_config)

    def read_weights(self, folder: Path) -> None:
        """Takes {stage}.safetensors."""
        weights = load_weights(folder / weights_name(self.name), self.name)
        expected = self.stage.decoder.state_dict()
        laid_out = {
            name: laid_out_like(tensor, expected[name]) if name in expected else tensor
            for name, tensor in weights.tensors.items()
        }
        load_into(self.stage.decoder, replace(weights, tensors=laid_out))

    def resumable(self) -> Mapping[str, Resumable]:
        """The optimizer."""
        return {"optimizer": self.optimization}

    def _run(self, module: nn.Module, ids: list[Ids], seeds: Seeds | None = None) -> StageLoss:
        """The stage's loss, its products in the run's precision."""
        with products_in(self.config.precision, self.accelerator.device):
            return module(ids, self.config.cross_entropy_loss_weights, seeds)

    def _placeholder(self) -> list[Ids]:
        """The shortest batch there is."""
        device = self.accelerator.device
        return [torch.zeros(1, 1, kind.quantizers, dtype=torch.long, device=device) for kind in self.stage.sequences]

    def _seeds(self, draws: Sequence[int]) -> Seeds:
        """What is random about these examples in training: it depends on neither the batch nor the process."""
        drawn = [random_generator(self.config.seed, draw, 1).integers(1 << 31) for draw in draws]
        return torch.tensor(drawn, dtype=torch.int32, device=self.accelerator.device)

    def _ids(self, batch: SoundBatch | list[Ids]) -> list[Ids]:
        if not isinstance(batch, SoundBatch):
            return batch
        assert self.tools.tokenizer is not None
        return self.tokenize(batch.waves, self.tools.tokenizer)


def clap_crop(config: ModelConfig) -> Crop:
    """The sound that CLAP receives: its window."""
    return tokenizer_crop("clap", config.global_cfg.clap_audio_length_seconds, config)


def semantic_crop(config: ModelConfig, seconds: float) -> Crop:
    """The sound that MERT receives."""
    return tokenizer_crop("semantic", seconds, config)


def acoustic_crop(config: ModelConfig, seconds: float) -> Crop:
    """The sound that the codec receives."""
    return tokenizer_crop("acoustic", seconds, config)
