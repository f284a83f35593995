"""The trainer of the spectral codec: encoder and codebooks learn to reconstruct the spectrogram."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from open_musiclm.config.codecs import SpectralCodecTrainerConfig
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.devices import matmul_autocast
from open_musiclm.tokenizers.own_directory import check_same_architecture, load_model, save_model
from open_musiclm.tokenizers.spectral_codec import SpectralArchitecture, SpectralModel
from open_musiclm.training.backbones.codebooks import Quantized, codebook_usage, quantize_and_update
from open_musiclm.training.backbones.encodec import quieter
from open_musiclm.training.backbones.rng import example_rngs, step_rng
from open_musiclm.training.backbones.trainer import BackboneTrainer
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.distributed import ValidationMeans, mean_metrics
from open_musiclm.training.optimizer import Optimizer
from open_musiclm.training.trainer import IndexedBatch, StepResult

CROP = "codec"
_BETAS = (0.9, 0.98)
_FITTED_EXAMPLES = 256


class SpectralTraining(nn.Module):
    """From wave to spectrogram and back from its codes; each forward updates the codebooks."""

    def __init__(self, model: SpectralModel, config: SpectralCodecTrainerConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self, waves: Float[Tensor, "batch samples"], rng: np.random.Generator
    ) -> tuple[Float[Tensor, ""], Quantized]:
        """The mean distance of spectrograms in nats, and the quantized latents."""
        spectrogram, latents = self.model.encode(waves)
        decay, dead = self.config.codebook_decay, self.config.dead_code_share
        with torch.autocast(latents.device.type, enabled=False):
            quantizer = self.model.quantizer
            quantized = quantize_and_update(quantizer, latents.float(), quantizer.n_q, decay, dead, rng)
        decoded = self.model.decoder(quantized.latents)
        return (decoded.float() - spectrogram).abs().mean(), quantized


class SpectralCodecTrainer(BackboneTrainer[SoundBatch]):
    """Trains encoder and spectrogram decoder by gradient, codebooks as moving averages."""

    name = "spectral_codec"

    def __init__(
        self, accelerator: Accelerator, architecture: SpectralArchitecture, config: SpectralCodecTrainerConfig
    ) -> None:
        self.accelerator, self.architecture, self.config = accelerator, architecture, config
        training = SpectralTraining(SpectralModel(architecture), config).to(accelerator.device)
        self.optimizer = Optimizer(accelerator, training, config, _BETAS)

    @staticmethod
    def crops(architecture: SpectralArchitecture, config: SpectralCodecTrainerConfig) -> list[Crop]:
        """The crops of a sound file for one example."""
        return [Crop(CROP, config.crop_seconds, architecture.sample_hz, normalized=False)]

    @property
    def model(self) -> SpectralModel:
        """The model in training."""
        plain = self.optimizer.plain_module
        assert isinstance(plain, SpectralTraining)
        return plain.model

    @torch.no_grad()
    def fit_linear_maps(self, data: TrainingData) -> None:
        """Starts from the principal components of the first examples. Raises UserError if they are too few."""
        waves = torch.stack([data.training[index].waves[CROP] for index in range(_FITTED_EXAMPLES)])
        model = self.model.cpu()
        frames = -(-waves.shape[1] // model.hop) * model.frame_length
        model.fit_linear_maps(model.spectrogram(waves, frames))
        model.to(self.accelerator.device)

    def train_step(self, batches: Iterator[IndexedBatch[SoundBatch]], step: int) -> StepResult:
        """One step of the network and of the codebooks."""
        indexed = next(batches)
        rngs = example_rngs(self.config.seed, indexed.indices)
        waves = quieter(indexed.batch.waves[CROP], rngs, self.config.quieter_by_db)
        self.optimizer.module.train()
        with matmul_autocast(self.config.precision, self.accelerator.device):
            distance, quantized = self.optimizer.module(waves, step_rng(self.config.seed, step))
        loss = distance + self.config.commitment_weight * quantized.commitment
        self.accelerator.backward(loss)
        update = self.optimizer.update(step, [loss])
        metrics = mean_metrics({"spectrogram": distance, "commitment": quantized.commitment})
        metrics = {**metrics, "gradient_norm": update.gradient_norm}
        return StepResult(metrics["spectrogram"], waves.numel() / self.architecture.sample_hz, metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[IndexedBatch[SoundBatch]]) -> Mapping[str, float]:
        """Distance of spectrograms in nats, and the share of codes in use."""
        model = self.model.eval()
        means = ValidationMeans(self.accelerator, ("loss",))
        used = torch.zeros(self.architecture.n_q, self.architecture.bins, device=self.accelerator.device)
        for indexed in batches:
            waves = indexed.batch.waves[CROP]
            spectrogram, latents = model.encode(waves)
            codes = model.quantizer.vq.encode(latents)
            decoded = model.decoder(model.quantizer.decode(codes))
            means.add(((decoded - spectrogram).abs().mean(),), len(waves))
            used.scatter_(1, codes.flatten(1), 1.0)
        return {**means.compute(), **codebook_usage(used)}

    def save(self, directory: Path) -> None:
        """A directory that `encodec_cfg.model_name` can name."""
        save_model(self.model, self.architecture, directory)

    def start_from(self, directory: Path) -> None:
        """See `BackboneTrainer.start_from`."""
        model, architecture = load_model(directory, SpectralArchitecture, SpectralModel)
        check_same_architecture(directory, architecture, self.architecture)
        self.model.load_state_dict(model.state_dict())
