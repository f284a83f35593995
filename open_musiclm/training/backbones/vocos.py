"""The trainer of Vocos decoders (Siuzdak 2023) on the codes of a frozen codec."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor, nn

from open_musiclm.audio import samples_of
from open_musiclm.config.codecs import VocosShape, VocosTrainerConfig
from open_musiclm.data.crops import Crop
from open_musiclm.devices import matmul_autocast
from open_musiclm.errors import UserError
from open_musiclm.metrics.codec import si_sdr
from open_musiclm.metrics.spectral_distance import SpectralDistance
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.codec_model import CodecModel
from open_musiclm.tokenizers.own_directory import check_same_architecture, load_model, save_model
from open_musiclm.tokenizers.vocos_decoder import VocosArchitecture, VocosDecoder
from open_musiclm.training.backbones.coded_sounds import CROP, CodedBatch
from open_musiclm.training.backbones.rng import step_rng
from open_musiclm.training.backbones.trainer import BackboneTrainer
from open_musiclm.training.backbones.vocos_discriminators import Discriminators, loss_of_discriminators
from open_musiclm.training.distributed import ValidationMeans, mean_metrics
from open_musiclm.training.optimizer import Optimizer, frozen
from open_musiclm.training.samples import SAMPLES_WRITTEN, write_waves
from open_musiclm.training.trainer import IndexedBatch, StepResult

_BETAS = (0.8, 0.99)
_VALIDATED = ("loss", "log_mel_distance", "stft_distance", "si_sdr")


def vocos_architecture(shape: VocosShape, codec: Codec) -> VocosArchitecture:
    """A decoder of this shape for a codec. Raises UserError if the codec has fewer codebooks or other frames."""
    if shape.quantizers[-1] > codec.quantizers:
        raise UserError(
            f"architecture: quantizers: {shape.quantizers[-1]}, but this model config's codec has {codec.quantizers} "
            "codebooks (num_coarse_quantizers + num_fine_quantizers)"
        )
    try:
        return VocosArchitecture(
            sample_hz=codec.sample_hz,
            hop=codec.hop,
            latent_dim=codec.model.latent_dim,
            **{**shape.model_dump(), "quantizers": tuple(shape.quantizers)},
        )
    except ValidationError as error:
        raise UserError(f"architecture: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


class VocosTrainer(BackboneTrainer[CodedBatch]):
    """Trains a decoder by spectral losses, and by discriminators that are trained against it once they join.

    A batch passes through one of the numbers of codebooks in the architecture, at random. Validation takes the most.
    Raises UserError if the crops are too short for the discriminators.
    """

    name = "vocos"

    def __init__(
        self, accelerator: Accelerator, codec: Codec, architecture: VocosArchitecture, config: VocosTrainerConfig
    ) -> None:
        self.accelerator, self.codec, self.architecture, self.config = accelerator, codec, architecture, config
        config.check_crop(samples_of(self.crop(codec, config).seconds, codec.sample_hz))
        self.optimizer = Optimizer(accelerator, VocosDecoder(architecture).to(accelerator.device), config, _BETAS)
        self.distance = SpectralDistance(architecture.sample_hz).to(accelerator.device)
        if config.adversarial:
            module = Discriminators(
                config.discriminator_periods, config.discriminator_windows, config.discriminator_channels
            )
            self.discriminator = Optimizer(accelerator, module.to(accelerator.device), config, _BETAS)

    @staticmethod
    def crop(codec: Codec, config: VocosTrainerConfig) -> Crop:
        """What is cut out of a sound file for one example: a whole number of code frames."""
        frames = max(round(config.crop_seconds * codec.sample_hz) // codec.hop, 1)
        return Crop(CROP, frames * codec.hop / codec.sample_hz, codec.sample_hz, normalized=False)

    @property
    def decoder(self) -> VocosDecoder:
        """The decoder in training."""
        plain = self.optimizer.plain_module
        assert isinstance(plain, VocosDecoder)
        return plain

    def train_step(self, batches: Iterator[IndexedBatch[CodedBatch]], step: int) -> StepResult:
        """One step of the decoder, and of the discriminators once they have joined."""
        batch = next(batches).batch
        waves, level = batch.waves[CROP], self._level(step)
        self.optimizer.module.train()
        with matmul_autocast(self.config.precision, self.accelerator.device):
            decoded = self.optimizer.module(self._latents(batch.codes, level), level).float()
        losses = self._spectral_losses(decoded, waves)
        joined = self.discriminator if step >= self.config.adversarial_from_step else None
        seen = slice(self.config.discriminator_examples)
        if joined is not None:
            module = joined.plain_module
            assert isinstance(module, Discriminators)
            with frozen(module):
                adversary = module.generator_losses(decoded[seen], waves[seen])
            losses |= {"adversarial": adversary.adversarial, "feature_matching": adversary.feature_matching}
        weights = {name: getattr(self.config, f"{name}_weight") for name in losses}
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        self.accelerator.backward(loss)
        update = self.optimizer.update(step, losses.values())
        values = {**losses, "si_sdr": si_sdr(decoded.detach(), waves).mean()}
        if joined is not None:
            values["discriminator"] = self._train_discriminators(joined, decoded.detach()[seen], waves[seen], step)
        metrics = {**mean_metrics(values), "gradient_norm": update.gradient_norm}
        return StepResult(metrics["mel"], waves.numel() / self.codec.sample_hz, metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[IndexedBatch[CodedBatch]]) -> Mapping[str, float]:
        """Log-mel and STFT distance in nats, and SI-SDR in dB; the loss is the sum of both distances."""
        means = ValidationMeans(self.accelerator, _VALIDATED)
        for indexed in batches:
            batch = indexed.batch
            waves, decoded = batch.waves[CROP], self._decoded(batch)
            distances = self.distance(decoded, waves)
            stft = (distances.convergence + distances.magnitude).mean()
            values = (distances.mel.mean() + stft, distances.mel.mean(), stft, si_sdr(decoded, waves).mean())
            means.add(values, len(waves))
        return means.compute()

    @torch.no_grad()
    def write_samples(self, batch: CodedBatch, folder: Path) -> list[Path]:
        """Waves of a batch, and their reconstructions from codes."""
        waves = {"true": batch.waves[CROP], "decoded": self._decoded(batch)}
        some = {kind: each[:SAMPLES_WRITTEN] for kind, each in waves.items()}
        return write_waves(folder, some, self.codec.sample_hz)

    def save(self, directory: Path) -> None:
        """A directory that `encodec_cfg.decoder` can name."""
        save_model(self.decoder, self.architecture, directory)

    def start_from(self, directory: Path) -> None:
        """See `BackboneTrainer.start_from`."""
        model, architecture = load_model(directory, VocosArchitecture, VocosDecoder)
        check_same_architecture(directory, architecture, self.architecture)
        self.decoder.load_state_dict(model.state_dict())

    def _spectral_losses(
        self, decoded: Float[Tensor, "batch samples"], waves: Float[Tensor, "batch samples"]
    ) -> dict[str, Tensor]:
        distances = self.distance(decoded, waves)
        return {name: value.mean() for name, value in distances._asdict().items()}

    def _train_discriminators(
        self,
        optimizer: Optimizer,
        decoded: Float[Tensor, "batch samples"],
        waves: Float[Tensor, "batch samples"],
        step: int,
    ) -> Float[Tensor, ""]:
        loss = loss_of_discriminators(optimizer.module, decoded, waves)
        self.accelerator.backward(loss)
        optimizer.update(step, [loss])
        return loss.detach()

    def _level(self, step: int) -> int:
        """Which number of codebooks a step trains; the same in every process."""
        return int(step_rng(self.config.seed, step).integers(len(self.architecture.quantizers)))

    def _latents(
        self, codes: Int[Tensor, "batch time quantizers"], level: int
    ) -> Float[Tensor, "batch latent_dim time"]:
        codec: CodecModel = self.codec.model
        with torch.no_grad():
            return codec.latents(codes[..., : self.architecture.quantizers[level]])

    def _decoded(self, batch: CodedBatch) -> Float[Tensor, "batch samples"]:
        level = len(self.architecture.quantizers) - 1
        model: nn.Module = self.decoder.eval()
        return model(self._latents(batch.codes, level), level)
