"""The trainers of the three stages: loss, validation, samples, weights."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig
from open_musiclm.data.example_order import random_generator
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.data.text_conditioning import TextConditionedBatch
from open_musiclm.devices import matmul_autocast
from open_musiclm.errors import UserError
from open_musiclm.models.example_rng import Seeds
from open_musiclm.models.stages import Ids, Stage, StageLoss
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.distributed import (
    ValidationMeans,
    all_reduce_mean,
    is_sharded,
)
from open_musiclm.training.ema import AVERAGE_NAME, WeightAverage, check_average
from open_musiclm.training.generated_evaluation import StageEvaluator
from open_musiclm.training.optimizer import Optimizer
from open_musiclm.training.samples import SAMPLES_WRITTEN, write_waves
from open_musiclm.training.stage_examples import acoustic_ids, stage_ids
from open_musiclm.training.stage_files import StageFile, WholeStageFile
from open_musiclm.training.trainer import IndexedBatch, Resumable, StepResult, Trainer

TokenBatch = IndexedBatch[SoundBatch | list[Ids]]  # tokens, or sound to make them of


@dataclass(frozen=True)
class StageTools:
    """The parts of a stage's trainer besides the stage: the tokenizers if batches are sound, None if they are tokens;
    the codec if waves are wanted; the evaluator if the config has `evaluate_every`."""

    model_config: ModelConfig
    tokenizer: MusicTokenizer | None
    codec: Codec | None
    evaluator: StageEvaluator | None = None


class StageTrainer(Trainer[SoundBatch | list[Ids]]):
    """Trains a stage on batches of the crops of `stage_crops`, or of tokens in the order of the stage's sequences."""

    name: StageName

    def __init__(
        self,
        accelerator: Accelerator,
        stage: Stage,
        tools: StageTools,
        config: StageTrainerConfig,
        file: StageFile | None = None,
    ) -> None:
        self.accelerator, self.tools, self.config = accelerator, tools, config
        self.file = file or WholeStageFile(tools.model_config)
        self.name = stage.name
        self.batches_per_step, self.evaluate_every = config.grad_accum_every, config.evaluate_every
        transformer = stage.layout.transformer
        transformer.gradient_checkpointing = config.gradient_checkpointing
        if config.compile:
            if accelerator.device.type == "cpu":  # seen with torch 2.11: a segmentation fault
                raise UserError(
                    f"{stage.name}_trainer_cfg: compile: torch's compiler crashes on a CPU here; set it false"
                )
            transformer.compile_blocks()
        self.optimizer = Optimizer(accelerator, stage.to(accelerator.device), config)
        self.average = None if config.ema_decay is None else WeightAverage(self.stage, config.ema_decay)
        if config.evaluate_every is not None and is_sharded(self.stage):
            raise UserError(f"{stage.name}_trainer_cfg: evaluate_every: not with sharded weights; leave it out")

    @property
    def stage(self) -> Stage:
        """The stage in training."""
        plain = self.optimizer.plain_module
        assert isinstance(plain, Stage)
        return plain

    def train_step(self, batches: Iterator[TokenBatch], step: int) -> StepResult:
        """One optimizer step on the mean loss of the batches."""
        self.stage.train()
        tokens, losses, accuracies = 0, [], []
        for indexed in batches:
            ids = self.tokens_of(indexed.batch)
            with self.accelerator.accumulate(self.optimizer.module):
                result = self._run(self.optimizer.module, ids, self._seeds(indexed.indices))
                self.accelerator.backward(result.loss)
            losses.append(result.loss.detach())
            accuracies.append(result.accuracy)
            tokens += sum(sequence.numel() for sequence in ids)
        means = torch.stack((torch.stack(losses).mean(), torch.stack(accuracies).mean()))
        update = self.optimizer.update(step, [means[0]])
        if self.average is not None and not update.skipped:
            self.average.update()
        loss, accuracy = all_reduce_mean(means).tolist()
        metrics = {
            "accuracy": accuracy,
            "learning_rate": update.learning_rate,
            "gradient_norm": update.gradient_norm,
        }
        return StepResult(loss, tokens, metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[TokenBatch]) -> Mapping[str, float]:
        """Loss and accuracy over the examples of all processes."""
        with self._averaged():
            return self._validate(batches)

    def _validate(self, batches: Iterable[TokenBatch]) -> Mapping[str, float]:
        stage = self.stage.eval()
        means = ValidationMeans(self.accelerator, ("loss", "accuracy"))
        for indexed in self._as_many_as_others(batches) if is_sharded(stage) else batches:
            if indexed is None:
                self._run(stage, self._placeholder())
                continue
            ids = self.tokens_of(indexed.batch)
            result = self._run(stage, ids)
            means.add((result.loss, result.accuracy), ids[0].shape[0])
        return means.compute()

    def _as_many_as_others(self, batches: Iterable[TokenBatch]) -> Iterator[TokenBatch | None]:
        """The batches, then None as long as any other process has one: where weights are sharded, every pass gathers
        them from all processes."""
        own = iter(batches)
        while True:
            batch = next(own, None)
            has_one = torch.tensor([int(batch is not None)], device=self.accelerator.device)
            if not self.accelerator.gather(has_one).any():
                return
            yield batch

    @torch.no_grad()
    def evaluate(self, batches: Iterable[TokenBatch]) -> Mapping[str, float]:
        """CLAP score and FAD of what the stage generates for `evaluate_samples` examples."""
        evaluator = self.tools.evaluator
        if evaluator is None:
            return {}
        with self._averaged():
            return evaluator.evaluate(self.stage.eval(), (self.tokens_of(indexed.batch) for indexed in batches))

    @torch.no_grad()
    def write_samples(self, batch: SoundBatch | list[Ids], folder: Path) -> list[Path]:
        """Teacher-forced most likely tokens of a batch beside the true ones, and both as waves."""
        ids = [sequence[:SAMPLES_WRITTEN] for sequence in self.tokens_of(batch)]
        with self._averaged():
            predicted = self._run(self.stage.eval(), ids).predicted_ids
        folder.mkdir(parents=True, exist_ok=True)
        if self.config.save_predicted_tokens:
            tokens = {"predicted": predicted, "true": ids[-1]}
            save_file({name: x.cpu().contiguous() for name, x in tokens.items()}, folder / "tokens.safetensors")
        codec = self.tools.codec
        if not self.config.save_reconstructed_wave or codec is None:
            return []
        waves = {}
        for name, last in (("predicted", predicted), ("true", ids[-1])):
            acoustic = acoustic_ids(self.stage.sequences, [*ids[:-1], last])
            if acoustic is not None:
                waves[name] = codec.decode(acoustic)
        return write_waves(folder, waves, codec.sample_hz)

    @torch.no_grad()
    def run_beside_samples(self) -> None:
        """Runs the stage where it is sharded: its weights are gathered where all processes run it."""
        if is_sharded(self.stage):
            with self._averaged():
                self._run(self.stage.eval(), self._placeholder())

    def write_weights(self, folder: Path) -> None:
        """The stage's weights or its adapter, averaged if `ema_decay` is set."""
        with self._averaged():
            self.file.write(folder, self.stage, self.accelerator.is_main_process)

    def read_weights(self, folder: Path) -> None:
        """Reads what `write_weights` wrote; if it is an average, `resumable` has the weights in training."""
        check_average(folder, self.average)
        self.file.read(folder, self.stage)

    def resumable(self) -> Mapping[str, Resumable]:
        """The optimizer, and the weights in training if those of the checkpoint are an average."""
        return {"optimizer": self.optimizer} | ({AVERAGE_NAME: self.average} if self.average is not None else {})

    def _averaged(self) -> AbstractContextManager[None]:
        """While entered, the stage has its averaged weights, if it keeps any."""
        return nullcontext() if self.average is None else self.average.applied()

    def _run(self, module: nn.Module, ids: list[Ids], seeds: Seeds | None = None) -> StageLoss:
        """The stage's loss, its products in the run's precision."""
        with matmul_autocast(self.config.precision, self.accelerator.device):
            return module(ids, self.config.cross_entropy_loss_weights, seeds)

    def _placeholder(self) -> list[Ids]:
        """The shortest batch there is."""
        device = self.accelerator.device
        return [torch.zeros(1, 1, kind.quantizers, dtype=torch.long, device=device) for kind in self.stage.sequences]

    def _seeds(self, indices: Sequence[int]) -> Seeds:
        """Seeds of dropout and masks: they depend on the examples alone."""
        seeds = [random_generator(self.config.seed, index, 1).integers(1 << 31) for index in indices]
        return torch.tensor(seeds, dtype=torch.int32, device=self.accelerator.device)

    def tokens_of(self, batch: SoundBatch | list[Ids]) -> list[Ids]:
        """The tokens of a batch; sound is tokenized here."""
        if not isinstance(batch, SoundBatch):
            return batch
        assert self.tools.tokenizer is not None
        captions = batch.captions if isinstance(batch, TextConditionedBatch) else ()
        return stage_ids(self.stage.sequences, batch.waves, self.tools.tokenizer, captions)


class SemanticTrainer(StageTrainer):
    """CLAP tokens to semantic tokens."""


class CoarseTrainer(StageTrainer):
    """CLAP and semantic tokens to the codec's first codebooks."""


class FineTrainer(StageTrainer):
    """CLAP and coarse tokens to the codec's remaining codebooks."""


TRAINERS: dict[StageName, type[StageTrainer]] = {
    "semantic": SemanticTrainer,
    "coarse": CoarseTrainer,
    "fine": FineTrainer,
}
