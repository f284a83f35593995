"""The trainer of CLAP (Wu et al. 2023, 3): sound and its captions drawn together, all others apart."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.config.backbones import ClapTrainerConfig
from open_musiclm.errors import UserError
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
from open_musiclm.training.backbones.clap_text import LONGEST_PROMPT_TOKENS
from open_musiclm.training.backbones.optimization import CosineAdamW
from open_musiclm.training.backbones.randomness import example_chances, example_seeds, follow_examples, seed_dropout
from open_musiclm.training.distributed import averaged, gathered
from open_musiclm.training.means import Means
from open_musiclm.training.trainer import Drawn, Learned, Resumable, Trainer

WEIGHTS_FOLDER = "clap"
_WEIGHTS_NAME = "model.safetensors"
_LARGEST_LOGIT_SCALE = 100.0
_HIDDEN_FRAMES, _HIDDEN_MELS = 100, 8
_COMPARED_AT_ONCE = 512  # with 50,000 others, in numbers of 100 MB
_VALIDATED = ("loss", *(f"{kind}_recall_at_{most}" for kind in ("text", "sound") for most in RECALL_AT))


class ClapTraining(nn.Module):
    """Both towers of a batch."""

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


class ClapTrainer(Trainer[CaptionedBatch]):
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
        self.optimization = CosineAdamW(accelerator, training, config, betas=(0.9, 0.98))

    @property
    def model(self) -> ClapModel:
        """The model in training."""
        plain = self.accelerator.unwrap_model(self.optimization.module)
        assert isinstance(plain, ClapTraining)
        return plain.model

    def learn(self, batches: Iterator[Drawn[CaptionedBatch]], step: int) -> Learned:
        """One step of contrast within the batches of all processes together."""
        drawn = next(batches)
        batch, chances = drawn.batch, example_chances(self.config.seed, drawn.draws)
        self.optimization.module.train()
        seeds = example_seeds(chances, self.accelerator.device)
        spectrograms = disturbed(batch.spectrograms, chances, self.config.louder_or_quieter_by_db)
        with self.optimization.products():
            audio, text, scale = self.optimization.module(spectrograms, *self._tokens(batch.captions), seeds)
        own = Pairs(audio, text, caption_numbers(batch.captions).to(audio.device))
        loss = contrastive_loss(own, _pairs_of_all(own), scale)
        self.accelerator.backward(loss)
        norm = self.optimization.update(step, [loss])
        metrics = {"gradient_norm": norm, "logit_scale": scale.item()}
        return Learned(averaged(loss).item(), len(batch.captions), metrics, skipped=norm != norm)

    @torch.no_grad()
    def validate(self, batches: Iterable[Drawn[CaptionedBatch]]) -> Mapping[str, float]:
        """The loss over the whole validation set as one batch, and retrieval recall at 1, 5 and 10 both ways.

        Each process compares its own pairs, some at a time, with those of all.
        """
        training = self.accelerator.unwrap_model(self.optimization.module).eval()
        own = []
        for batch in (drawn.batch for drawn in batches):
            with self.optimization.products():
                audio, text, _ = training(batch.spectrograms, *self._tokens(batch.captions), None)
            own.append(Pairs(audio.cpu(), text.cpu(), caption_numbers(batch.captions)))
        everyone = Pairs(
            *(torch.cat(part).to(self.accelerator.device) for part in zip(*gather_object(own), strict=True))
        )
        scale = self.model.logit_scale_a.exp().clamp(max=_LARGEST_LOGIT_SCALE)
        means = Means(self.accelerator, _VALIDATED)
        for some in _parts(own, self.accelerator.device):
            fits = some.captions[:, None] == everyone.captions
            recalls = (
                retrieval_recall(some.audio, everyone.text, fits),
                retrieval_recall(some.text, everyone.audio, fits),
            )
            loss = contrastive_loss(some, everyone, scale)
            means.add((loss, *(recall for found in recalls for recall in found.values())), len(fits))
        return means.over_all()

    def write_weights(self, folder: Path) -> None:
        """clap/: a directory that `clap_rvq_cfg.model_name` can name."""
        if not self.accelerator.is_main_process:
            return
        target = folder / WEIGHTS_FOLDER
        for part in (self.model, self.tokenizer, self.extractor):
            part.save_pretrained(target)

    def read_weights(self, folder: Path) -> None:
        """Takes clap/."""
        self.begin_with(folder / WEIGHTS_FOLDER)

    def begin_with(self, directory: Path) -> None:
        """Takes the weights of a model's own directory. Raises UserError."""
        file = directory / _WEIGHTS_NAME
        try:
            self.model.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{file}: does not fit this CLAP: {reason}") from error

    def resumable(self) -> Mapping[str, Resumable]:
        """The optimizer."""
        return {"optimizer": self.optimization}

    def _tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(
            captions, padding=True, truncation=True, max_length=LONGEST_PROMPT_TOKENS, return_tensors="pt"
        ).to(self.accelerator.device)
        return tokens.input_ids, tokens.attention_mask


def disturbed(
    spectrograms: Float[Tensor, "batch 1 time mels"], chances: Sequence[np.random.Generator], most_db: float
) -> Float[Tensor, "batch 1 time mels"]:
    """Louder or quieter, with a stretch of time and a band of pitches hidden (SpecAugment, Park et al. 2019)."""
    _, _, frames, mels = spectrograms.shape
    louder = torch.tensor([chance.uniform(-most_db, most_db) for chance in chances], dtype=spectrograms.dtype)
    result = spectrograms + louder.to(spectrograms.device)[:, None, None, None]
    hidden = _span(chances, frames, min(_HIDDEN_FRAMES, frames // 2))[:, None, :, None]
    hidden = hidden | _span(chances, mels, min(_HIDDEN_MELS, mels // 2))[:, None, None, :]
    mean = result.mean(dim=(2, 3), keepdim=True)
    return torch.where(hidden.to(result.device), mean, result)


def _span(chances: Sequence[np.random.Generator], size: int, longest: int) -> Bool[Tensor, "batch size"]:
    """One span of up to `longest` in each row."""
    lengths = [int(chance.integers(longest, endpoint=True)) for chance in chances]
    begins = [int(chance.integers(size - length + 1)) for chance, length in zip(chances, lengths, strict=True)]
    begin, place = torch.tensor(begins)[:, None], torch.arange(size)
    return (place >= begin) & (place < begin + torch.tensor(lengths)[:, None])


def _pairs_of_all(own: Pairs) -> Pairs:
    """The global batch, in one exchange of embeddings."""
    audio, text = gathered(torch.cat((own.audio, own.text), dim=1)).chunk(2, dim=1)
    return Pairs(audio, text, gathered(own.captions))


def _parts(own: Sequence[Pairs], device: torch.device) -> Iterator[Pairs]:
    """The same pairs in parts of a size that can be compared with all others."""
    if own:
        parts = (torch.cat(column).to(device).split(_COMPARED_AT_ONCE) for column in zip(*own, strict=True))
        yield from (Pairs(*columns) for columns in zip(*parts, strict=True))
