"""The fine stage's trainer: CLAP and coarse tokens to the remaining EnCodec codebooks."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig, StageName
from open_musiclm.data.sound_dataset import Crop
from open_musiclm.models.stages import Ids
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.stage_trainer import StageTrainer, acoustic_crop, clap_crop


class FineTrainer(StageTrainer):
    """CLAP hears its window, EnCodec the fine window inside it."""

    name: StageName = "fine"

    @classmethod
    def crops(cls, config: ModelConfig) -> list[Crop]:
        """What is cut out of a sound file for one example."""
        return [clap_crop(config), acoustic_crop(config, config.window_seconds("fine"))]

    def tokenize(self, waves: Mapping[str, Float[Tensor, "batch _"]], tokenizer: MusicTokenizer) -> list[Ids]:
        """[CLAP, coarse, fine]."""
        coarse = self.stage.sequences[1].quantizers
        acoustic = tokenizer.acoustic_ids(waves["acoustic"])
        return [tokenizer.clap_ids(waves["clap"]), acoustic[:, :, :coarse], acoustic[:, :, coarse:]]

    def acoustic_ids(self, ids: list[Ids], last: Int[Tensor, "batch time _"]) -> Int[Tensor, "batch time quantizers"]:
        """The true coarse codebooks, and `last` as the fine ones."""
        return torch.cat((ids[1], last), dim=2)
