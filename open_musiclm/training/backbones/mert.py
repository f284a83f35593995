"""The trainer of MERT (Li et al. 2023): a HuBERT that names codec tokens and draws pitches where it hears nothing."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from open_musiclm.data.sound_dataset import Crop, SoundBatch
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.encodec import Codec
from open_musiclm.training.backbones.config import MertArchitecture, MertTrainerConfig
from open_musiclm.training.backbones.constant_q import ConstantQ
from open_musiclm.training.backbones.mert_losses import MertHeads, MertLoss, frames_at, mask_spans, masked_features
from open_musiclm.training.backbones.optimization import CosineAdamW
from open_musiclm.training.trainer import Drawn, Learned, Resumable, Trainer

HEARD, CODED = "mert", "codec"
WEIGHTS_FOLDER = "mert"
_WEIGHTS_NAME = "model.safetensors"
_VALIDATION_SEED = 0
# A constant-Q frame's logarithms reach about 9; a fifth of that is near unit scale.
_PITCH_SCALE = 0.2


def build_mert(architecture: MertArchitecture) -> HubertModel:
    """An untrained MERT."""
    return HubertModel(
        HubertConfig(
            hidden_size=architecture.feature_dim,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.feed_forward_dim,
            conv_dim=[architecture.front_end_channels] * 7,
            num_conv_pos_embeddings=architecture.position_kernel,
            num_conv_pos_embedding_groups=architecture.position_groups,
            hidden_dropout=architecture.dropout,
            attention_dropout=architecture.dropout,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
            mask_feature_prob=0.0,
        )
    )


class MertTraining(nn.Module):
    """HuBERT and the heads of its training task."""

    def __init__(self, model: HubertModel, heads: MertHeads) -> None:
        super().__init__()
        self.model, self.heads = model, heads

    def forward(
        self,
        waves: Float[Tensor, "batch samples"],
        codes: Int[Tensor, "batch time quantizers"],
        pitches: Float[Tensor, "batch time pitches"],
        masked: Bool[Tensor, "batch time"],
    ) -> MertLoss:
        """The losses over the masked frames."""
        return self.heads(masked_features(self.model, waves, masked), codes, pitches, masked)


class MertTrainer(Trainer[SoundBatch]):
    """Trains on crops heard at `sample_hz` and, the same moment, at the codec's rate."""

    name = "mert"
    unit = "seconds of sound"

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
        bins = codec.model.quantizer.bins
        heads = MertHeads(model.config.hidden_size, codec.quantizers, bins, config.pitches)
        training = MertTraining(model, heads).to(accelerator.device)
        self.optimization = CosineAdamW(accelerator, training, config, betas=(0.9, 0.98))
        self.constant_q = ConstantQ(sample_hz, self.hop, config.pitches).to(accelerator.device)

    @staticmethod
    def crops(codec: Codec, sample_hz: int, config: MertTrainerConfig) -> list[Crop]:
        """What is cut out of a sound file for one example."""
        return [
            Crop(HEARD, config.crop_seconds, sample_hz, normalized=True),
            Crop(CODED, config.crop_seconds, codec.sample_hz, normalized=False),
        ]

    @property
    def training(self) -> MertTraining:
        """Model and heads."""
        plain = self.accelerator.unwrap_model(self.optimization.module)
        assert isinstance(plain, MertTraining)
        return plain

    def learn(self, batches: Iterator[Drawn[SoundBatch]], step: int) -> Learned:
        """One step on the masked frames of a batch."""
        batch = next(batches).batch
        self.optimization.module.train()
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        task = self._task(batch, generator)
        with self.optimization.products():
            result = self.optimization.module(*task)
        loss = self._loss(result)
        self.accelerator.backward(loss)
        norm = self.optimization.update(step, [loss])
        metrics = {"tokens": result.tokens.item(), "pitches": result.pitches.item(), "gradient_norm": norm}
        metrics |= {"accuracy": result.accuracy.mean().item(), "first_accuracy": result.accuracy[0].item()}
        seconds = batch.waves[HEARD].numel() / self.sample_hz
        return Learned(loss.item(), seconds, metrics, skipped=norm != norm)

    @torch.no_grad()
    def validate(self, batches: Iterable[SoundBatch]) -> Mapping[str, float]:
        """Losses and accuracies (of all codebooks, of the first) under masks that never change."""
        training = self.training.eval()
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        sums = torch.zeros(6, device=self.accelerator.device)
        for batch in batches:
            task = self._task(batch, generator)
            with self.optimization.products():
                result = training(*task)
            count = len(batch.waves[HEARD])
            values = (self._loss(result), result.tokens, result.pitches, result.accuracy.mean(), result.accuracy[0])
            sums += torch.stack((*(value * count for value in values), sums.new_tensor(count)))
        *totals, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        names = ("loss", "tokens", "pitches", "accuracy", "first_accuracy")
        return {name: total / count for name, total in zip(names, totals, strict=True)}

    def write_weights(self, folder: Path) -> None:
        """mert/: a directory that `hubert_kmeans_cfg.model_name` can name."""
        if self.accelerator.is_main_process:
            self.training.model.save_pretrained(folder / WEIGHTS_FOLDER)

    def read_weights(self, folder: Path) -> None:
        """Takes mert/."""
        self.begin_with(folder / WEIGHTS_FOLDER)

    def begin_with(self, directory: Path) -> None:
        """Takes the weights of a model's own directory. Raises UserError."""
        file = directory / _WEIGHTS_NAME
        try:
            self.training.model.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{file}: does not fit this MERT: {reason}") from error

    def resumable(self) -> Mapping[str, Resumable]:
        """The optimizer and the heads."""
        return {"optimizer": self.optimization, "heads": self.training.heads}

    def _loss(self, result: MertLoss) -> Tensor:
        return result.tokens + self.config.pitch_weight * result.pitches

    @torch.no_grad()
    def _task(self, batch: SoundBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        waves = batch.waves[HEARD]
        frames = (waves.shape[1] - self.kernel) // self.hop + 1
        codes = self.codec.encode(batch.waves[CODED])
        codes = frames_at(codes, self.codec.sample_hz // self.codec.hop, self.sample_hz // self.hop, frames)
        pitches = _PITCH_SCALE * self.constant_q(waves, frames)
        start, span = self.config.mask_start_probability, self.config.mask_span
        masked = mask_spans(len(waves), frames, start, span, generator).to(waves.device)
        return waves, codes, pitches, masked


def _receptive_field(config: HubertConfig) -> int:
    """The samples that the first frame hears: 400 for HuBERT."""
    field, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field
