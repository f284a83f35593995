"""One trainer class per stage. What they share is `StageTrainer`; what a stage is given follows from its streams."""

from open_musiclm.config import StageName
from open_musiclm.training.stage_trainer import StageTrainer


class SemanticTrainer(StageTrainer):
    """CLAP tokens to semantic tokens."""


class CoarseTrainer(StageTrainer):
    """CLAP and semantic tokens to the codec's first codebooks."""


class FineTrainer(StageTrainer):
    """CLAP and coarse tokens to the codec's remaining codebooks."""


TRAINERS: dict[StageName, type[StageTrainer]] = {
    "semantic": SemanticTrainer,
    "coarse": CoarseTrainer,
    "fine": FineTrainer,
}
