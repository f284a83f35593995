"""The trainer of CLAP (Wu et al. 2023, 3): contrast of sounds and their captions."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer
from transformers.utils.logging import disable_progress_bar

from open_musiclm.config.backbones import ClapTrainerConfig
from open_musiclm.devices import matmul_autocast
from open_musiclm.models.example_rng import Seeds
from open_musiclm.training.backbones.batch_norm import normalise_over_all
from open_musiclm.training.backbones.captioned_sounds import CaptionedBatch
from open_musiclm.training.backbones.clap_losses import (
    RECALL_AT,
    Pairs,
    caption_numbers,
    contrastive_loss,
    retrieval_recall,
)
from open_musiclm.training.backbones.clap_model import LONGEST_PROMPT_TOKENS
from open_musiclm.training.backbones.rng import example_rngs, example_seeds, follow_examples, seed_dropout
from open_musiclm.training.backbones.trainer import BackboneTrainer, load_pretrained_weights
from open_musiclm.training.distributed import ValidationMeans, all_gather, all_reduce_mean
from open_musiclm.training.optimizer import Optimizer
from open_musiclm.training.trainer import IndexedBatch, StepResult

_LARGEST_LOGIT_SCALE = 100.0
_HIDDEN_FRAMES, _HIDDEN_MELS = 100, 8
_COMPARED_AT_ONCE = 512  # with 50,000 others, in numbers of 100 MB
_VALIDATED = ("loss", *(f"{kind}_recall_at_{most}" for kind in ("text", "sound") for most in RECALL_AT))


class ClapTraining(nn.Module):
    """Both towers, and the one temperature that is trained: `logit_scale_a`."""

    def __init__(self, model: ClapModel) -> None:
        super().__init__()
        model.logit_scale_t.requires_grad_(False)
        encoder = model.audio_model.audio_encoder
        encoder.batch_norm = normalise_over_all(encoder.batch_norm)
        follow_examples(model)
        self.model = model

    def forward(
        self, spectrograms: Float[Tensor, "batch 1 time mels"], ids: Tensor, mask: Tensor, seeds: Seeds | None
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Embeddings of length 1 of the sounds and of their captions, and the scale of their cosines.

        Dropout follows the examples' `seeds`.
        """
        seed_dropout(self.model, seeds)
        audio = self.model.get_audio_features(spectrograms).pooler_output
        text = self.model.get_text_features(ids, attention_mask=mask).pooler_output
        return audio.float(), text.float(), self.model.logit_scale_a.exp().clamp(max=_LARGEST_LOGIT_SCALE)


class ClapTrainer(BackboneTrainer[CaptionedBatch]):
    """Trains both towers, of a new model or of one to be fine-tuned, on captioned sound."""

    name = "clap"
    unit = "examples"

    def __init__(
        self,
        accelerator: Accelerator,
        model: ClapModel,
        tokenizer: RobertaTokenizer,
        extractor: ClapFeatureExtractor,
        config: ClapTrainerConfig,
    ) -> None:
        self.accelerator, self.tokenizer, self.extractor, self.config = accelerator, tokenizer, extractor, config
        training = ClapTraining(model.float()).to(accelerator.device)
        self.optimizer = Optimizer(accelerator, training, config, betas=(0.9, 0.98))

    @property
    def model(self) -> ClapModel:
        """The model in training."""
        plain = self.optimizer.plain_module
        assert isinstance(plain, ClapTraining)
        return plain.model

    def train_step(self, batches: Iterator[IndexedBatch[CaptionedBatch]], step: int) -> StepResult:
        """One step of contrast within the batches of all processes."""
        indexed = next(batches)
        batch, rngs = indexed.batch, example_rngs(self.config.seed, indexed.indices)
        self.optimizer.module.train()
        seeds = example_seeds(rngs, self.accelerator.device)
        spectrograms = augmented(batch.spectrograms, rngs, self.config.louder_or_quieter_by_db)
        with self._products():
            audio, text, scale = self.optimizer.module(spectrograms, *self._tokens(batch.captions), seeds)
        own = Pairs(audio, text, caption_numbers(batch.captions).to(audio.device))
        loss = contrastive_loss(own, _pairs_of_all(own), scale)
        self.accelerator.backward(loss)
        update = self.optimizer.update(step, [loss])
        with torch.no_grad():  # above its limit it would have no gradient, and never come back
            self.model.logit_scale_a.clamp_(max=math.log(_LARGEST_LOGIT_SCALE))
        metrics = {"gradient_norm": update.gradient_norm, "logit_scale": scale.item()}
        return StepResult(all_reduce_mean(loss).item(), len(batch.captions), metrics, update.skipped)

    @torch.no_grad()
    def validate(self, batches: Iterable[IndexedBatch[CaptionedBatch]]) -> Mapping[str, float]:
        """The loss over the whole validation set as one batch, and retrieval recall at 1, 5 and 10 both ways.

        Each process compares its own pairs, some at a time, with those of all.
        """
        training = self.optimizer.plain_module.eval()
        own = []
        for batch in (indexed.batch for indexed in batches):
            with self._products():
                audio, text, _ = training(batch.spectrograms, *self._tokens(batch.captions), None)
            own.append(Pairs(audio.cpu(), text.cpu(), caption_numbers(batch.captions)))
        gathered: list[Pairs] = gather_object(own)
        if not gathered:
            return dict.fromkeys(_VALIDATED, float("nan"))
        everyone = Pairs(*(torch.cat(part).to(self.accelerator.device) for part in zip(*gathered, strict=True)))
        scale = self.model.logit_scale_a.exp().clamp(max=_LARGEST_LOGIT_SCALE)
        means = ValidationMeans(self.accelerator, _VALIDATED)
        for some in _split(own, self.accelerator.device):
            fits = some.captions[:, None] == everyone.captions
            recalls = (
                retrieval_recall(some.audio, everyone.text, fits),
                retrieval_recall(some.text, everyone.audio, fits),
            )
            loss = contrastive_loss(some, everyone, scale)
            means.add((loss, *(recall for found in recalls for recall in found.values())), len(fits))
        return means.compute()

    def save(self, directory: Path) -> None:
        """A directory that `clap_rvq_cfg.model_name` can name; both its temperatures are the trained one."""
        with torch.no_grad():
            self.model.logit_scale_t.copy_(self.model.logit_scale_a)
        disable_progress_bar()  # writing is quick
        for part in (self.model, self.tokenizer, self.extractor):
            part.save_pretrained(directory)

    def start_from(self, directory: Path) -> None:
        """See `BackboneTrainer.start_from`."""
        load_pretrained_weights(self.model, directory, "CLAP")

    def _products(self) -> torch.autocast:
        return matmul_autocast(self.config.precision, self.accelerator.device)

    def _tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(
            captions, padding=True, truncation=True, max_length=LONGEST_PROMPT_TOKENS, return_tensors="pt"
        ).to(self.accelerator.device)
        return tokens.input_ids, tokens.attention_mask


def augmented(
    spectrograms: Float[Tensor, "batch 1 time mels"], rngs: Sequence[np.random.Generator], most_db: float
) -> Float[Tensor, "batch 1 time mels"]:
    """Louder or quieter by up to `most_db`, a span of time and one of mels hidden (SpecAugment, Park et al. 2019)."""
    _, _, frames, mels = spectrograms.shape
    louder = torch.tensor([rng.uniform(-most_db, most_db) for rng in rngs], dtype=spectrograms.dtype)
    result = spectrograms + louder.to(spectrograms.device)[:, None, None, None]
    hidden = _span(rngs, frames, min(_HIDDEN_FRAMES, frames // 2))[:, None, :, None]
    hidden = hidden | _span(rngs, mels, min(_HIDDEN_MELS, mels // 2))[:, None, None, :]
    mean = result.mean(dim=(2, 3), keepdim=True)
    return torch.where(hidden.to(result.device), mean, result)


def _span(rngs: Sequence[np.random.Generator], size: int, longest: int) -> Bool[Tensor, "batch size"]:
    """One span of up to `longest` for each example."""
    lengths = [int(rng.integers(longest, endpoint=True)) for rng in rngs]
    begins = [int(rng.integers(size - length + 1)) for rng, length in zip(rngs, lengths, strict=True)]
    begin, place = torch.tensor(begins)[:, None], torch.arange(size)
    return (place >= begin) & (place < begin + torch.tensor(lengths)[:, None])


def _pairs_of_all(own: Pairs) -> Pairs:
    """The global batch, in one exchange of embeddings."""
    audio, text = all_gather(torch.cat((own.audio, own.text), dim=1)).chunk(2, dim=1)
    return Pairs(audio, text, all_gather(own.captions))


def _split(own: Sequence[Pairs], device: torch.device) -> Iterator[Pairs]:
    """The same pairs in parts of a size that can be compared with all others."""
    if own:
        parts = (torch.cat(column).to(device).split(_COMPARED_AT_ONCE) for column in zip(*own, strict=True))
        yield from (Pairs(*columns) for columns in zip(*parts, strict=True))
