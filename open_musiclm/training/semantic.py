"""The semantic stage's trainer: CLAP tokens to semantic tokens."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from open_musiclm.config import ModelConfig, StageName
from open_musiclm.data.sound_dataset import Crop
from open_musiclm.models.stages import Ids
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.stage_trainer import StageTrainer, clap_crop, semantic_crop


class SemanticTrainer(StageTrainer):
    """CLAP hears its window, MERT the semantic window."""

    name: StageName = "semantic"

    @classmethod
    def crops(cls, config: ModelConfig) -> list[Crop]:
        """What is cut out of a sound file for one example."""
        return [clap_crop(config), semantic_crop(config, config.window_seconds("semantic"))]

    def tokenize(self, waves: Mapping[str, Float[Tensor, "batch _"]], tokenizer: MusicTokenizer) -> list[Ids]:
        """[CLAP, semantic]."""
        return [tokenizer.clap_ids(waves["clap"]), tokenizer.semantic_ids(waves["semantic"])]
