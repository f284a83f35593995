"""The trainer of MERT (Li et al. 2023): a HuBERT that predicts codec tokens and pitches of masked frames."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel
from transformers.utils.logging import disable_progress_bar

from open_musiclm.config.backbones import MertArchitecture, MertTrainerConfig
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.devices import matmul_autocast
from open_musiclm.models.example_rng import Seeds
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.training.backbones.constant_q import ConstantQ
from open_musiclm.training.backbones.mert_losses import MertHeads, MertLoss, frames_at, mask_spans, masked_features
from open_musiclm.training.backbones.rng import example_rngs, example_seeds, follow_examples, seed_dropout
from open_musiclm.training.backbones.trainer import BackboneTrainer, load_pretrained_weights
from open_musiclm.training.distributed import ValidationMeans, all_reduce_mean, mean_metrics
from open_musiclm.training.optimizer import Optimizer
from open_musiclm.training.trainer import IndexedBatch, Resumable, StepResult

MERT_CROP, CODEC_CROP = "mert", "codec"
_VALIDATION_SEED = 0
_VALIDATED = ("loss", "tokens", "pitches", "accuracy", "first_accuracy")
# A constant-Q frame's logarithms reach about 9; a fifth of that is near unit scale.
_PITCH_SCALE = 0.2


def build_mert(architecture: MertArchitecture) -> HubertModel:
    """An untrained MERT."""
    last = 2 * architecture.samples_per_frame // 320
    return HubertModel(
        HubertConfig(
            hidden_size=architecture.feature_dim,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.feed_forward_dim,
            conv_dim=[architecture.front_end_channels] * 7,
            conv_kernel=[10, 3, 3, 3, 3, 2, last],
            conv_stride=[5, 2, 2, 2, 2, 2, last],
            num_conv_pos_embeddings=architecture.position_kernel,
            num_conv_pos_embedding_groups=architecture.position_groups,
            hidden_dropout=architecture.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            feat_proj_layer_norm=architecture.feature_projection_norm,
            layerdrop=0.0,
            mask_feature_prob=0.0,
        )
    )


class MertTraining(nn.Module):
    """HuBERT and the heads of its training task; with `predicts_unmasked` all frames are predicted."""

    def __init__(self, model: HubertModel, heads: MertHeads, predicts_unmasked: bool) -> None:
        super().__init__()
        follow_examples(model)
        self.model, self.heads, self.predicts_unmasked = model, heads, predicts_unmasked

    def forward(
        self,
        waves: Float[Tensor, "batch samples"],
        codes: Int[Tensor, "batch time quantizers"],
        pitches: Float[Tensor, "batch time pitches"],
        masked: Bool[Tensor, "batch time"],
        seeds: Seeds | None,
    ) -> tuple[MertLoss, MertLoss | None]:
        """The losses over the masked frames, and over the others; dropout follows the examples' `seeds`."""
        seed_dropout(self.model, seeds)
        features = masked_features(self.model, waves, masked)
        unmasked = None
        if self.predicts_unmasked and not masked.all():
            unmasked = self.heads(features, codes, pitches, ~masked)
        return self.heads(features, codes, pitches, masked), unmasked


class MertTrainer(BackboneTrainer[SoundBatch]):
    """Trains on crops at `sample_hz` and, of the same moment, at the codec's rate."""

    name = "mert"

    def __init__(
        self,
        accelerator: Accelerator,
        model: HubertModel,
        codec: Codec,
        sample_hz: int,
        config: MertTrainerConfig,
    ) -> None:
        self.accelerator, self.codec, self.sample_hz, self.config = accelerator, codec, sample_hz, config
        self.hop = 1
        for stride in model.config.conv_stride:
            self.hop *= stride
        self.kernel = _receptive_field(model.config)
        bins = codec.codebook_size
        heads = MertHeads(model.config.hidden_size, codec.quantizers, bins, config.pitches)
        training = MertTraining(model, heads, config.unmasked_weight > 0).to(accelerator.device)
        self.optimizer = Optimizer(accelerator, training, config, betas=(0.9, 0.98))
        self.constant_q = ConstantQ(sample_hz, self.hop, config.pitches).to(accelerator.device)

    @staticmethod
    def crops(codec: Codec, sample_hz: int, config: MertTrainerConfig) -> list[Crop]:
        """The crops of a sound file for one example."""
        return [
            Crop(MERT_CROP, config.crop_seconds, sample_hz, normalized=True),
            Crop(CODEC_CROP, config.crop_seconds, codec.sample_hz, normalized=False),
        ]

    @property
    def training(self) -> MertTraining:
        """Model and heads."""
        plain = self.optimizer.plain_module
        assert isinstance(plain, MertTraining)
        return plain

    def train_step(self, batches: Iterator[IndexedBatch[SoundBatch]], step: int) -> StepResult:
        """One step on the frames of all processes, each frame with the same weight."""
        indexed = next(batches)
        rngs = example_rngs(self.config.seed, indexed.indices)
        self.optimizer.module.train()
        task = self._task(indexed.batch, rngs)
        with self._products():
            masked, unmasked = self.optimizer.module(*task, example_seeds(rngs, self.accelerator.device))
        share = _share(task[-1])
        loss = share * self._loss(masked)
        if self.config.unmasked_weight:
            unmasked_share = _share(~task[-1])  # all processes take part, also one without such frames
            if unmasked is not None:
                loss = loss + self.config.unmasked_weight * unmasked_share * self._loss(unmasked)
        self.accelerator.backward(loss)
        update = self.optimizer.update(step, [loss])
        values = {name: share * value for name, value in self._values(masked).items()}
        metrics = mean_metrics({**values, "loss": loss})
        seconds = indexed.batch.waves[MERT_CROP].numel() / self.sample_hz
        metrics["gradient_norm"] = update.gradient_norm
        return StepResult(metrics.pop("loss"), seconds, metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[IndexedBatch[SoundBatch]]) -> Mapping[str, float]:
        """Losses and accuracies (of all codebooks, of the first) over the masked frames, the same ones every time.

        "loss" counts the frames that are not masked too, by their weight.
        """
        training = self.training.eval()
        means = ValidationMeans(self.accelerator, _VALIDATED)
        unmasked_means = ValidationMeans(self.accelerator, ("loss",))
        for indexed in batches:
            task = self._task(indexed.batch, example_rngs(_VALIDATION_SEED, indexed.indices))
            with self._products():
                masked, unmasked = training(*task, None)
            values = self._values(masked)
            means.add([values[name] for name in _VALIDATED], int(task[-1].sum()))
            if unmasked is not None:
                unmasked_means.add([self._loss(unmasked)], int((~task[-1]).sum()))
        validated = means.compute()
        if self.config.unmasked_weight:
            validated["loss"] += self.config.unmasked_weight * unmasked_means.compute()["loss"]
        return validated

    def save(self, directory: Path) -> None:
        """A directory that `hubert_kmeans_cfg.model_name` can name."""
        disable_progress_bar()  # writing is quick
        self.training.model.save_pretrained(directory)

    def start_from(self, directory: Path) -> None:
        """See `BackboneTrainer.start_from`."""
        load_pretrained_weights(self.training.model, directory, "MERT")

    def resumable(self) -> Mapping[str, Resumable]:
        """The optimizer and the heads."""
        return {**super().resumable(), "heads": self.training.heads}

    def _products(self) -> torch.autocast:
        return matmul_autocast(self.config.precision, self.accelerator.device)

    def _loss(self, result: MertLoss) -> Tensor:
        return result.tokens + self.config.pitch_weight * result.pitches

    def _values(self, masked: MertLoss) -> dict[str, Tensor]:
        """What is logged and validated of the masked frames."""
        accuracies = (masked.accuracy.mean(), masked.accuracy[0])
        values = (self._loss(masked), masked.tokens, masked.pitches, *accuracies)
        return dict(zip(_VALIDATED, values, strict=True))

    @torch.no_grad()
    def _task(
        self, batch: SoundBatch, rngs: Sequence[np.random.Generator]
    ) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "batch time"]]:
        waves = batch.waves[MERT_CROP]
        frames = (waves.shape[1] - self.kernel) // self.hop + 1
        codes = self.codec.encode(batch.waves[CODEC_CROP])
        codes = frames_at(codes, self.codec.sample_hz // self.codec.hop, self.sample_hz // self.hop, frames)
        pitches = _PITCH_SCALE * self.constant_q(waves, frames)
        start, span = self.config.mask_start_probability, self.config.mask_span
        masked = mask_spans(rngs, frames, start, span).to(waves.device)
        return waves, codes, pitches, masked


def _share(counted: Bool[Tensor, "batch time"]) -> Tensor:
    """How many frames this process counts, as a multiple of what processes count on average."""
    frames = counted.sum().float()
    return frames / all_reduce_mean(frames)


def _receptive_field(config: HubertConfig) -> int:
    """The samples that the first frame is computed from: 400 for HuBERT."""
    field, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field
