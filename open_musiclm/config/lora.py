"""LoRA of a stage: which layers get an adapter, and of what rank."""

from typing import Annotated, Literal

from pydantic import Field

from open_musiclm.config.fields import AtMost, PositiveFloat, Probability
from open_musiclm.config.json_files import Section

LoraTarget = Literal["to_query", "to_key_value", "to_output", "to_hidden", "embeddings"]
LINEAR_TARGETS: tuple[LoraTarget, ...] = ("to_query", "to_key_value", "to_output", "to_hidden")
LARGEST_LORA_RANK = 4096
LoraRank = Annotated[int, Field(gt=0), AtMost(LARGEST_LORA_RANK, "an adapter of such a rank is larger than a layer")]


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021): the stage's own weights stay unchanged."""

    rank: LoraRank = Field(default=16, description="Rank of every adapted layer's update.")
    alpha: PositiveFloat | None = Field(
        default=None, description="The update is scaled by alpha / rank; null: alpha is the rank."
    )
    dropout: Probability = Field(default=0.0, description="Dropout of the adapters' inputs.")
    targets: Annotated[list[LoraTarget], Field(min_length=1)] = Field(
        default=list(LINEAR_TARGETS),
        description="Layers with an adapter: to_query, to_key_value (attention), to_output (attention and "
        "feed-forward), to_hidden (feed-forward), embeddings (the tables of tokens, and of t5 position biases).",
    )

    @property
    def scale(self) -> float:
        """The factor of the product of both matrices: alpha / rank."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank
