"""The trainer of MERT (Li et al. 2023): a HuBERT that names codec tokens and draws pitches where it hears nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from open_musiclm.config.backbones import MertArchitecture, MertTrainerConfig
from open_musiclm.data.sound_dataset import Crop, SoundBatch
from open_musiclm.errors import UserError
from open_musiclm.models.example_rng import Seeds
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.training.backbones.constant_q import ConstantQ
from open_musiclm.training.backbones.mert_losses import MertHeads, MertLoss, frames_at, mask_spans, masked_features
from open_musiclm.training.backbones.optimization import CosineAdamW
from open_musiclm.training.backbones.randomness import example_chances, example_seeds, follow_examples, seed_dropout
from open_musiclm.training.distributed import averaged, averaged_numbers
from open_musiclm.training.means import Means
from open_musiclm.training.trainer import Drawn, Learned, Resumable, Trainer

HEARD, CODED = "mert", "codec"
WEIGHTS_FOLDER = "mert"
_WEIGHTS_NAME = "model.safetensors"
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
            feat_proj_layer_norm=not architecture.onsets,
            layerdrop=0.0,
            mask_feature_prob=0.0,
        )
    )


class MertTraining(nn.Module):
    """HuBERT and the heads of its training task; `hears` if frames that are not masked are a task too."""

    def __init__(self, model: HubertModel, heads: MertHeads, hears: bool) -> None:
        super().__init__()
        follow_examples(model)
        self.model, self.heads, self.hears = model, heads, hears

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
        heard = self.heads(features, codes, pitches, ~masked) if self.hears and not masked.all() else None
        return self.heads(features, codes, pitches, masked), heard


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
        training = MertTraining(model, heads, config.heard_weight > 0).to(accelerator.device)
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
        """One step on the frames of all processes: a process that has more of them counts for more."""
        drawn = next(batches)
        chances = example_chances(self.config.seed, drawn.draws)
        self.optimization.module.train()
        task = self._task(drawn.batch, chances)
        with self.optimization.products():
            masked, heard = self.optimization.module(*task, example_seeds(chances, self.accelerator.device))
        share = _share(task[-1])
        loss = share * self._loss(masked)
        if self.config.heard_weight:
            heard_share = _share(~task[-1])  # every process asks, whether it heard a frame or not
            if heard is not None:
                loss = loss + self.config.heard_weight * heard_share * self._loss(heard)
        self.accelerator.backward(loss)
        norm = self.optimization.update(step, [loss])
        values = {name: share * value for name, value in self._values(masked).items()}
        metrics = averaged_numbers({**values, "loss": loss})
        seconds = drawn.batch.waves[HEARD].numel() / self.sample_hz
        return Learned(metrics.pop("loss"), seconds, {**metrics, "gradient_norm": norm}, skipped=norm != norm)

    @torch.no_grad()
    def validate(self, batches: Iterable[Drawn[SoundBatch]]) -> Mapping[str, float]:
        """Losses and accuracies (of all codebooks, of the first) over the masked frames, the same ones every time; the
        loss is the whole one."""
        training = self.training.eval()
        means, of_heard = Means(self.accelerator, _VALIDATED), Means(self.accelerator, ("loss",))
        for drawn in batches:
            task = self._task(drawn.batch, example_chances(_VALIDATION_SEED, drawn.draws))
            with self.optimization.products():
                masked, heard = training(*task, None)
            values = self._values(masked)
            means.add([values[name] for name in _VALIDATED], int(task[-1].sum()))
            if heard is not None:
                of_heard.add([self._loss(heard)], int((~task[-1]).sum()))
        validated = means.over_all()
        if self.config.heard_weight:
            validated["loss"] += self.config.heard_weight * of_heard.over_all()["loss"]
        return validated

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

    def _values(self, masked: MertLoss) -> dict[str, Tensor]:
        """What is logged and validated of the masked frames."""
        accuracies = (masked.accuracy.mean(), masked.accuracy[0])
        values = (self._loss(masked), masked.tokens, masked.pitches, *accuracies)
        return dict(zip(_VALIDATED, values, strict=True))

    @torch.no_grad()
    def _task(
        self, batch: SoundBatch, chances: Sequence[np.random.Generator]
    ) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "batch time"]]:
        waves = batch.waves[HEARD]
        frames = (waves.shape[1] - self.kernel) // self.hop + 1
        codes = self.codec.encode(batch.waves[CODED])
        codes = frames_at(codes, self.codec.sample_hz // self.codec.hop, self.sample_hz // self.hop, frames)
        pitches = _PITCH_SCALE * self.constant_q(waves, frames)
        start, span = self.config.mask_start_probability, self.config.mask_span
        masked = mask_spans(chances, frames, start, span).to(waves.device)
        return waves, codes, pitches, masked


def _share(counted: Bool[Tensor, "batch time"]) -> Tensor:
    """How many frames this process counts, as a multiple of what processes count on average."""
    frames = counted.sum().float()
    return frames / averaged(frames)


def _receptive_field(config: HubertConfig) -> int:
    """The samples that the first frame hears: 400 for HuBERT."""
    field, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field
