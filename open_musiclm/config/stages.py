"""The stages' sections of the model config: their transformers, and how acoustic tokens are laid out."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from open_musiclm.config.fields import (
    AtMost,
    Layers,
    NonNegativeInt,
    PositiveInt,
    Probability,
    Width,
)
from open_musiclm.config.json_files import Section


class TransformerConfig(Section):
    """One stage's transformer."""

    dim: Width = Field(default=1024, description="model dimension")
    depth: Layers = Field(default=6, description="blocks")
    heads: Layers = Field(default=8, description="query heads of size 64; keys and values have one head")
    attn_dropout: Probability = Field(
        default=0.0,
        description="training: dropout of attention weights; with it two runs differ, even with the same seed",
    )
    ff_dropout: Probability = Field(default=0.1, description="training: dropout in the feed-forward layers")
    use_conv_ff: bool = Field(
        default=True, description="whether feed-forward layers have a causal convolution of width 3"
    )
    grad_shrink_alpha: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="training: factor on the gradient of the embeddings; 1: unchanged"
    )
    non_causal_prefix_size: NonNegativeInt = Field(
        default=0, description="number of first positions that see each other in both directions"
    )
    relative_position_bias_type: Literal["continuous", "t5", "none"] = Field(
        default="continuous",
        description="bias of attention by distance: an MLP of the distance, T5's buckets, or none",
    )
    use_memory_efficient_attention: bool = Field(
        default=False, description="accepted and ignored, for older config files"
    )
    use_absolute_position_embeddings: bool = Field(
        default=False, description="whether learned absolute positions are added, one table per sequence"
    )
    max_absolute_position_embeddings: PositiveInt = Field(
        default=262, description="size of these tables: tokens of the longest sequence"
    )
    conditioning_time_bias: bool = Field(
        default=False,
        description="whether attention gets a bias for the distance in time between a conditioning token and the "
        "predicted one; other position biases know only positions, and sequences have different rates",
    )
    condition_dropout: Probability = Field(
        default=0.0,
        description="training: share of examples whose whole conditioning is masked; guidance (`cfg_scale`) "
        "needs some, such as 0.1",
    )
    scheduled_sampling: Probability = Field(
        default=0.0,
        description="training: share of examples in whose history (the tokens before the predicted one) a random share "
        "of the frames is sampled from the stage's own predictions; costs one more forward pass a step",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_removed_keys(cls, section: object) -> object:
        """What configs of weights may have that were trained before `scheduled_sampling`."""
        if not isinstance(section, dict):
            return section
        return {key: value for key, value in section.items() if key not in ("history_corruption", "strayed_history")}


class SemanticConfig(TransformerConfig):
    """The semantic stage's transformer."""


class AcousticConfig(TransformerConfig):
    """What the coarse and the fine stage share: how acoustic tokens are laid out."""

    token_layout: Literal["flat", "frames"] = Field(
        default="flat",
        description="flat: one position per token, as in released checkpoints; frames: one position per acoustic frame",
    )
    conditioning_kernel: Annotated[PositiveInt, AtMost(4097, "every frame of it has weights")] = Field(
        default=9, description="frames layout: width of a convolution over the conditioning frames; odd"
    )
    conditioning_depth: Annotated[NonNegativeInt, AtMost(64, "every block has weights of its own")] = Field(
        default=2, description="frames layout: convolution blocks over the conditioning"
    )
    clap_per_frame: bool = Field(
        default=False,
        description="frames layout: whether an embedding of the CLAP tokens is added to every frame too, so that a "
        "small stage follows the prompt beyond its first frames",
    )

    @model_validator(mode="after")
    def _frames_fit(self) -> "AcousticConfig":
        if self.conditioning_kernel % 2 == 0:
            raise ValueError(f"conditioning_kernel {self.conditioning_kernel}: expected an odd number")
        if self.token_layout == "frames":
            for key in ("conditioning_time_bias", "non_causal_prefix_size", "use_absolute_position_embeddings"):
                if getattr(self, key):
                    raise ValueError(f"{key}: only with token_layout flat; leave it out for frames")
        elif self.clap_per_frame:
            raise ValueError("clap_per_frame: only with token_layout frames; leave it out for flat")
        return self


class CoarseConfig(AcousticConfig):
    """The coarse stage's transformer."""

    max_absolute_position_embeddings: PositiveInt = Field(
        default=712, description="size of these tables: tokens of the longest sequence"
    )


class FineConfig(AcousticConfig):
    """The fine stage's transformer."""

    max_absolute_position_embeddings: PositiveInt = Field(
        default=1212, description="size of these tables: tokens of the longest sequence"
    )
