"""Scorers measure how well waves match their prompts; search keeps the best."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.prompts.prompting import SteadyPrompt


@runtime_checkable
class Scorer(Protocol):
    """`name` is the key of the score in the JSON beside a wave."""

    name: str

    def score(self, prompts: Sequence[SteadyPrompt], waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch"]:
        """One number for each prompt and its wave, at the codec's sample rate; higher is better."""


class ClapScorer:
    """The cosine similarity of prompt and wave as the model's own CLAP embeds them."""

    name = "similarity"

    def __init__(self, model: MusicLM) -> None:
        self.model = model

    def score(self, prompts: Sequence[SteadyPrompt], waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch"]:
        """Cosines, from -1 to 1."""
        return (self.model.embed_waves(waves) * self.model.embed_prompts(prompts)).sum(dim=1)
