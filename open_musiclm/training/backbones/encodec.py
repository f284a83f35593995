"""The trainer of EnCodec (Défossez et al. 2022, 3.4), of any size, on folders of sound."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import encodec
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from encodec.msstftd import MultiScaleSTFTDiscriminator
from jaxtyping import Float, Int
from torch import Tensor, nn

from open_musiclm.config.backbones import RANDOM_INIT, EncodecTrainerConfig
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.devices import convolution_autocast
from open_musiclm.metrics.codec import log_spectral_distance, si_sdr
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, build_encodec, load_encodec
from open_musiclm.tokenizers.own_directory import check_same_architecture, save_model
from open_musiclm.training.backbones.codebooks import Quantized, codebook_usage, quantize_and_update
from open_musiclm.training.backbones.encodec_losses import (
    Balancer,
    SpectrogramLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from open_musiclm.training.backbones.rng import example_rngs, step_rng
from open_musiclm.training.backbones.trainer import BackboneTrainer
from open_musiclm.training.backbones.transform_codec import start_as_transform_codec
from open_musiclm.training.distributed import ValidationMeans, mean_metrics
from open_musiclm.training.optimizer import Optimizer
from open_musiclm.training.samples import SAMPLES_WRITTEN, write_waves
from open_musiclm.training.trainer import IndexedBatch, Resumable, StepResult

CROP = "codec"
_BETAS = (0.8, 0.99)


class EncodecTraining(nn.Module):
    """EnCodec from wave to wave; each forward updates the codebooks."""

    def __init__(self, model: encodec.EncodecModel, config: EncodecTrainerConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self, waves: Float[Tensor, "batch samples"], quantizers: int, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "batch samples"], Quantized]:
        """Decoded waves, and the latents quantized by the first `quantizers` codebooks; `rng` is that of the step."""
        latents = self.model.encoder(waves[:, None]).float()  # codes are chosen among float32 vectors
        decay, dead = self.config.codebook_decay, self.config.dead_code_share
        with torch.autocast(latents.device.type, enabled=False):
            quantized = quantize_and_update(self.model.quantizer, latents, quantizers, decay, dead, rng)
        return self.model.decoder(quantized.latents)[:, 0, : waves.shape[1]].float(), quantized


class EncodecTrainer(BackboneTrainer[SoundBatch]):
    """Trains encoder and decoder by gradient, codebooks as moving averages, and discriminators against the decoder."""

    name = "encodec"

    def __init__(
        self, accelerator: Accelerator, architecture: EncodecArchitecture, config: EncodecTrainerConfig
    ) -> None:
        self.accelerator, self.architecture, self.config = accelerator, architecture, config
        model = build_encodec(architecture)
        self._initialized = config.init == RANDOM_INIT  # else from the first batch
        training = EncodecTraining(model, config).to(accelerator.device)
        self.optimizer = Optimizer(accelerator, training, config, _BETAS)
        self.spectrogram_loss = SpectrogramLoss(architecture.sample_hz, config.spectrogram_windows)
        self.spectrogram_loss.to(accelerator.device)
        weights = {"time": config.time_weight, "spectrogram": config.spectrogram_weight}
        weights |= {"adversarial": config.adversarial_weight, "feature_matching": config.feature_matching_weight}
        self.balancer = Balancer(weights).to(accelerator.device)
        self.discriminator = self._discriminator() if config.adversarial else None

    @staticmethod
    def crops(architecture: EncodecArchitecture, config: EncodecTrainerConfig) -> list[Crop]:
        """The crops of a sound file for one example."""
        return [Crop(CROP, config.crop_seconds, architecture.sample_hz, normalized=False)]

    @property
    def model(self) -> encodec.EncodecModel:
        """The model in training."""
        plain = self.optimizer.plain_module
        assert isinstance(plain, EncodecTraining)
        return plain.model

    def train_step(self, batches: Iterator[IndexedBatch[SoundBatch]], step: int) -> StepResult:
        """One step of the codec, and of the discriminators once they have joined."""
        indexed = next(batches)
        waves = quieter(
            indexed.batch.waves[CROP], example_rngs(self.config.seed, indexed.indices), self.config.quieter_by_db
        )
        self._initialize(waves)
        self.optimizer.module.train()
        rng = step_rng(self.config.seed, step)
        with convolution_autocast(self.config.precision, self.accelerator.device):
            decoded, quantized = self.optimizer.module(waves, self._random_quantizers(rng), rng)
        leaf = decoded.detach().requires_grad_()
        losses = {"time": (leaf - waves).abs().mean(), "spectrogram": self.spectrogram_loss(leaf, waves)}
        adversary = self.discriminator if step >= self.config.adversarial_from_step else None
        if adversary is not None:
            losses |= _adversarial_losses(adversary.plain_module, leaf, waves)
        gradient = self.balancer.gradient(losses, leaf) / len(waves)
        commitment = self.config.commitment_weight * quantized.commitment
        self.accelerator.backward((decoded * gradient).sum() + commitment)
        update = self.optimizer.update(step, losses.values())
        values = {**losses, "commitment": quantized.commitment, "si_sdr": si_sdr(leaf.detach(), waves).mean()}
        if adversary is not None:
            values["discriminator"] = _train_discriminator(self.accelerator, adversary, leaf.detach(), waves, step)
        metrics = {**mean_metrics(values), "gradient_norm": update.gradient_norm}
        loss = metrics["time"] + metrics["spectrogram"]
        return StepResult(loss, waves.numel() / self.architecture.sample_hz, metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[IndexedBatch[SoundBatch]]) -> Mapping[str, float]:
        """Losses, SI-SDR and log-spectral distance in dB with all codebooks, and the least used codebook's usage."""
        model = self.model.eval()
        means = ValidationMeans(self.accelerator, ("loss", "si_sdr", "log_spectral_distance"))
        used = torch.zeros(self.architecture.n_q, self.architecture.bins, device=self.accelerator.device)
        for indexed in batches:
            waves = indexed.batch.waves[CROP]
            codes = _encode(model, waves)
            decoded = _decode(model, codes, waves.shape[1])
            loss = self.spectrogram_loss(decoded, waves) + (decoded - waves).abs().mean()
            distance = log_spectral_distance(decoded, waves).mean()
            means.add((loss, si_sdr(decoded, waves).mean(), distance), len(waves))
            used.scatter_(1, codes.permute(2, 0, 1).flatten(1), 1.0)
        return {**means.compute(), **codebook_usage(used)}

    @torch.no_grad()
    def write_samples(self, batch: SoundBatch, folder: Path) -> list[Path]:
        """Waves of a batch, and their reconstructions with all codebooks."""
        waves = batch.waves[CROP][:SAMPLES_WRITTEN]
        model = self.model.eval()
        decoded = _decode(model, _encode(model, waves), waves.shape[1])
        return write_waves(folder, {"true": waves, "decoded": decoded}, self.architecture.sample_hz)

    def save(self, directory: Path) -> None:
        """A directory that `encodec_cfg.model_name` can name."""
        save_model(self.model, self.architecture, directory)

    def start_from(self, directory: Path) -> None:
        """See `BackboneTrainer.start_from`."""
        model, architecture = load_encodec(directory)
        check_same_architecture(directory, architecture, self.architecture)
        self.model.load_state_dict(model.state_dict())
        self._initialized = True

    def resumable(self) -> Mapping[str, Resumable]:
        """The balancer's averages too."""
        return {**super().resumable(), "balancer": self.balancer}

    def _discriminator(self) -> Optimizer:
        module = MultiScaleSTFTDiscriminator(filters=self.config.discriminator_filters)
        return Optimizer(self.accelerator, module.to(self.accelerator.device), self.config, (0.5, 0.9))

    @torch.no_grad()
    def _initialize(self, waves: Float[Tensor, "batch samples"]) -> None:
        """Sets the weights to a transform codec of the first batch of all processes, the same in each."""
        if self._initialized:
            return
        start_as_transform_codec(self.model, self.accelerator.gather(waves))
        for parameter in self.model.parameters():
            broadcast(parameter.data)
        self._initialized = True

    def _random_quantizers(self, rng: np.random.Generator) -> int:
        """How many codebooks a batch passes through."""
        dropped = rng.random() < self.config.quantizer_dropout
        fewer = int(rng.integers(1, self.architecture.n_q, endpoint=True))
        return fewer if dropped else self.architecture.n_q


def quieter(
    waves: Float[Tensor, "batch samples"], rngs: Sequence[np.random.Generator], quieter_by_db: float
) -> Float[Tensor, "batch samples"]:
    """Waves at up to `quieter_by_db` below their own level, clipped to full scale before."""
    decibels = [rng.uniform(-quieter_by_db, 0) for rng in rngs]
    gains = torch.tensor([10 ** (value / 20) for value in decibels], dtype=waves.dtype, device=waves.device)
    return waves.clamp(-1, 1) * gains[:, None]


def _encode(model: encodec.EncodecModel, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]:
    return model.quantizer.vq.encode(model.encoder(waves[:, None])).permute(1, 2, 0)


def _decode(
    model: encodec.EncodecModel, codes: Int[Tensor, "batch time quantizers"], samples: int
) -> Float[Tensor, "batch samples"]:
    return model.decoder(model.quantizer.decode(codes.permute(2, 0, 1)))[:, 0, :samples]


def _adversarial_losses(
    discriminator: nn.Module, decoded: Float[Tensor, "batch samples"], waves: Float[Tensor, "batch samples"]
) -> dict[str, Tensor]:
    logits, maps = discriminator(decoded[:, None])
    with torch.no_grad():
        _, maps_of_real = discriminator(waves[:, None])
    return {"adversarial": adversarial_loss(logits), "feature_matching": feature_matching_loss(maps_of_real, maps)}


def _train_discriminator(
    accelerator: Accelerator,
    optimizer: Optimizer,
    decoded: Float[Tensor, "batch samples"],
    waves: Float[Tensor, "batch samples"],
    step: int,
) -> Float[Tensor, ""]:
    logits_of_real, _ = optimizer.module(waves[:, None])
    logits_of_decoded, _ = optimizer.module(decoded[:, None])
    loss = discriminator_loss(logits_of_real, logits_of_decoded)
    accelerator.backward(loss)
    optimizer.update(step, [loss])
    return loss.detach()
