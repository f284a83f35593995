"""The trainer of CLAP (Wu et al. 2023, 3): sound and its captions drawn together, all others apart."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.errors import UserError
from open_musiclm.training.backbones.captioned_sounds import CaptionedBatch
from open_musiclm.training.backbones.clap_losses import contrastive_loss, retrieval_recall, same_captions
from open_musiclm.training.backbones.clap_text import LONGEST_PROMPT_TOKENS
from open_musiclm.training.backbones.config import ClapTrainerConfig
from open_musiclm.training.backbones.optimization import CosineAdamW
from open_musiclm.training.trainer import Drawn, Learned, Resumable, Trainer

WEIGHTS_FOLDER = "clap"
_WEIGHTS_NAME = "model.safetensors"
_LARGEST_LOGIT_SCALE = 100.0
_HIDDEN_FRAMES, _HIDDEN_MELS = 100, 8


class ClapTraining(nn.Module):
    """Both towers of a batch."""

    def __init__(self, model: ClapModel) -> None:
        super().__init__()
        model.logit_scale_t.requires_grad_(False)
        self.model = model

    def forward(
        self, spectrograms: Float[Tensor, "batch 1 time mels"], ids: Tensor, mask: Tensor
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Embeddings of length 1 of the sounds and of their captions, and the scale of their cosines."""
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
        """One step of contrast within the batch of each process."""
        batch = next(batches).batch
        self.optimization.module.train()
        spectrograms = self._disturbed(batch.spectrograms)
        with self.optimization.products():
            audio, text, scale = self.optimization.module(spectrograms, *self._tokens(batch.captions))
        same = same_captions(batch.captions).to(audio.device)
        loss = contrastive_loss(audio, text, scale, same)
        self.accelerator.backward(loss)
        norm = self.optimization.update(step, [loss])
        metrics = {"gradient_norm": norm, "logit_scale": scale.item()}
        return Learned(loss.item(), len(batch.captions), metrics, skipped=norm != norm)

    @torch.no_grad()
    def validate(self, batches: Iterable[CaptionedBatch]) -> Mapping[str, float]:
        """The loss over the whole validation set as one batch, and retrieval recall at 1, 5 and 10 both ways."""
        training = self.accelerator.unwrap_model(self.optimization.module).eval()
        pairs: list[tuple[Tensor, Tensor, list[str]]] = []
        for batch in batches:
            with self.optimization.products():
                audio, text, _ = training(batch.spectrograms, *self._tokens(batch.captions))
            pairs.append((audio.cpu(), text.cpu(), batch.captions))
        pairs = gather_object(pairs)
        audio = torch.cat([pair[0] for pair in pairs])
        text = torch.cat([pair[1] for pair in pairs])
        same = same_captions([caption for pair in pairs for caption in pair[2]])
        scale = self.model.logit_scale_a.exp().clamp(max=_LARGEST_LOGIT_SCALE).cpu()
        result = {"loss": contrastive_loss(audio, text, scale, same).item()}
        for name, (queries, candidates) in {"text": (audio, text), "sound": (text, audio)}.items():
            for most, recall in retrieval_recall(queries, candidates, same).items():
                result[f"{name}_recall_at_{most}"] = recall
        return result

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

    def _disturbed(self, spectrograms: Float[Tensor, "batch 1 time mels"]) -> Float[Tensor, "batch 1 time mels"]:
        """Louder or quieter, with a stretch of time and a band of pitches hidden (SpecAugment, Park et al. 2019)."""
        batch, _, frames, mels = spectrograms.shape
        most = self.config.louder_or_quieter_by_db
        result = spectrograms + (2 * torch.rand(batch, 1, 1, 1) - 1).to(spectrograms.device) * most
        hidden = _span(batch, frames, min(_HIDDEN_FRAMES, frames // 2))[:, None, :, None]
        hidden = hidden | _span(batch, mels, min(_HIDDEN_MELS, mels // 2))[:, None, None, :]
        mean = result.mean(dim=(2, 3), keepdim=True)
        return torch.where(hidden.to(result.device), mean, result)


def _span(batch: int, size: int, longest: int) -> Tensor:
    """Masks [batch, size] with one span of up to `longest` in each row."""
    length = torch.randint(0, longest + 1, (batch, 1))
    begin = (torch.rand(batch, 1) * (size - length)).long()
    place = torch.arange(size)[None]
    return (place >= begin) & (place < begin + length)
