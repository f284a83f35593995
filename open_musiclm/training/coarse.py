"""The coarse stage's trainer: CLAP and semantic tokens to the first EnCodec codebooks."""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig, StageName
from open_musiclm.data.sound_dataset import Crop
from open_musiclm.models.stages import Ids
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.stage_trainer import StageTrainer, acoustic_crop, clap_crop, semantic_crop


class CoarseTrainer(StageTrainer):
    """CLAP hears its window, MERT and EnCodec the same coarse window inside it."""

    name: StageName = "coarse"

    @classmethod
    def crops(cls, config: ModelConfig) -> list[Crop]:
        """What is cut out of a sound file for one example."""
        window = config.window_seconds("coarse")
        return [clap_crop(config), semantic_crop(config, window), acoustic_crop(config, window)]

    def tokenize(self, waves: Mapping[str, Float[Tensor, "batch _"]], tokenizer: MusicTokenizer) -> list[Ids]:
        """[CLAP, semantic, coarse]."""
        acoustic = tokenizer.acoustic_ids(waves["acoustic"])
        coarse = acoustic[:, :, : self.stage.predicted.quantizers]
        return [tokenizer.clap_ids(waves["clap"]), tokenizer.semantic_ids(waves["semantic"]), coarse]

    def acoustic_ids(self, ids: list[Ids], last: Int[Tensor, "batch time _"]) -> Int[Tensor, "batch time quantizers"]:
        """The coarse codebooks alone: the codec makes a rougher wave of them."""
        return last
