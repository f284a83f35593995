"""The trainer of the residual quantizer over CLAP's audio embeddings."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from jaxtyping import Float
from torch import Tensor

from open_musiclm.checkpoints import load_into, load_weights, save_weights, weights_name
from open_musiclm.config import ClapRvqTrainerConfig, ModelConfig
from open_musiclm.data.example_order import random_generator
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.training.distributed import all_reduce
from open_musiclm.training.trainer import IndexedBatch, StepResult, Trainer


class ClapRvqTrainer(Trainer[SoundBatch]):
    """One step: embeddings of `accumulate_batches` batches, and one update of the codebooks with all of them."""

    name = "clap_rvq"
    unit = "examples"

    def __init__(
        self,
        accelerator: Accelerator,
        clap: Clap,
        quantizer: ClapQuantizer,
        model_config: ModelConfig,
        config: ClapRvqTrainerConfig,
    ) -> None:
        self.accelerator, self.clap, self.model_config = accelerator, clap, model_config
        self.quantizer = quantizer.to(accelerator.device)
        self.batches_per_step, self.seed = config.accumulate_batches, config.seed
        self._validation_embeddings: Float[Tensor, "examples dim"] | None = None

    def train_step(self, batches: Iterator[IndexedBatch[SoundBatch]], step: int) -> StepResult:
        """One update of the codebooks; the loss is the mean squared error of the quantized embeddings.

        Every process makes the update with the embeddings of all, in the order that a single process has them in.
        """
        own = [self.clap.embed_audio(indexed.batch.waves["clap"]) for indexed in batches]
        embeddings = torch.cat([self.accelerator.gather(part) for part in own])
        amount = sum(map(len, own))
        if not embeddings.isfinite().all():
            return StepResult(float("nan"), amount, {}, skipped=True)
        with torch.random.fork_rng(devices=_generators(embeddings.device)):
            torch.manual_seed(int(random_generator(self.seed, step).integers(1 << 62)))
            loss = self.quantizer.update(embeddings).item()
        for buffer in self.quantizer.buffers():  # GPUs may sum in another order
            broadcast(buffer)
        return StepResult(loss, amount, {})

    @torch.no_grad()
    def validate(self, batches: Iterable[IndexedBatch[SoundBatch]]) -> Mapping[str, float]:
        """The quantization error, and the share of all codes that the validation set uses."""
        if self._validation_embeddings is None:  # they never change: CLAP is frozen
            embedded = [self.clap.embed_audio(indexed.batch.waves["clap"]) for indexed in batches]
            dim = self.clap.embedding_dim
            self._validation_embeddings = (
                torch.cat(embedded) if embedded else torch.zeros(0, dim, device=self.accelerator.device)
            )
        embeddings = self._validation_embeddings
        tokens = self.quantizer.encode(embeddings)
        codebooks, quantized = self.quantizer.residual_vq.codebooks, self.quantizer.decode(tokens)
        sums = torch.stack(((quantized - embeddings).square().sum(), embeddings.new_tensor(embeddings.numel())))
        error, count = all_reduce(sums).tolist()
        used = torch.zeros(codebooks.shape[:2], device=embeddings.device).scatter(1, tokens.t(), 1.0)
        usage = all_reduce(used).clamp(max=1.0).mean().item()
        return {"loss": error / count if count else float("nan"), "codebook_usage": usage}

    def write_weights(self, folder: Path) -> None:
        """clap_rvq.safetensors: the codebooks and their moving averages."""
        if self.accelerator.is_main_process:
            save_weights(folder / weights_name("clap_rvq"), "clap_rvq", self.quantizer.state_dict(), self.model_config)

    def read_weights(self, folder: Path) -> None:
        """Reads clap_rvq.safetensors."""
        load_into(self.quantizer, load_weights(folder / weights_name("clap_rvq"), "clap_rvq"))


def _generators(device: torch.device) -> list[int]:
    """The GPUs whose rng states are kept."""
    return [device.index or 0] if device.type == "cuda" else []
