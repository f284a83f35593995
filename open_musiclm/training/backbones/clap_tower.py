"""One tower of a trained CLAP learning on, while the other stays as it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.errors import UserError

_LEAST_SHARE = 0.02  # of the rate, at the end
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class ClapDirectory:
    """What the directory of a CLAP holds, in evaluation mode."""

    model: ClapModel
    tokenizer: RobertaTokenizer
    extractor: ClapFeatureExtractor

    @classmethod
    def load(cls, folder: Path) -> "ClapDirectory":
        """Raises UserError where there is none."""
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no config.json there; give the clap directory of a training")
        return cls(
            ClapModel.from_pretrained(folder, dtype=torch.float32).eval(),
            RobertaTokenizer.from_pretrained(folder),
            ClapFeatureExtractor.from_pretrained(folder),
        )

    def save(self, folder: Path) -> None:
        """Writes what `load` reads."""
        for part in (self.model, self.tokenizer, self.extractor):
            part.save_pretrained(folder)


class TowerOptimizer:
    """AdamW over the weights of one tower; the rate rises, then falls linearly over `steps`."""

    def __init__(
        self,
        model: ClapModel,
        tower: Literal["text", "audio"],
        rate: float,
        weight_decay: float,
        warm_up_steps: int,
        steps: int,
    ) -> None:
        self._learned = [weight for name, weight in model.named_parameters() if name.startswith(tower)]
        self._optimizer = torch.optim.AdamW(self._learned, lr=rate, weight_decay=weight_decay)

        def share(step: int) -> float:
            return min(1, (step + 1) / warm_up_steps) * max(_LEAST_SHARE, 1 - step / steps)

        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, share)

    def learn(self, loss: Float[Tensor, ""]) -> None:
        """One step down the gradient of `loss`."""
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learned, _LARGEST_GRADIENT)
        self._optimizer.step()
        self._schedule.step()
