"""The directory of a trained CLAP whose training goes on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.errors import UserError


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
