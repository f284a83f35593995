"""A token layout: which positions a window has, how they are embedded, and what is predicted where.

The flat layout has one position per token, the frames layout one per acoustic frame. Stages and their training
use a layout only through this interface; for generation each layout has its own generator.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from open_musiclm.models.position_bias import PositionTimes
from open_musiclm.models.transformer import Transformer
from open_musiclm.tokens import TokenStream

PADDING = -1  # the id of a conditioning token that is hidden, or not there

Ids = Int[Tensor, "batch _ _"]


class EmbeddedWindow(NamedTuple):
    """The positions of a window: their embeddings, which of them are attended to as keys, and their times."""

    x: Float[Tensor, "batch positions dim"]
    key_mask: Bool[Tensor, "batch positions"]
    times: PositionTimes


class TokenLayout(nn.Module, ABC):
    """Embeddings and heads around a transformer. `sequences` are the conditioning streams, then the predicted one."""

    sequences: tuple[TokenStream, ...]
    transformer: Transformer

    @abstractmethod
    def embed(self, ids: Sequence[Ids]) -> EmbeddedWindow:
        """A window of the conditioning tokens and of the predicted ones, [batch, frames, quantizers] each.

        Conditioning that is `PADDING` is hidden.
        """

    @abstractmethod
    def predictions(
        self, hidden: Float[Tensor, "batch positions dim"], ids: Sequence[Ids], wanted: Sequence[bool]
    ) -> tuple[list[Float[Tensor, "batch _ _"] | None], list[Int[Tensor, "batch _"]]]:
        """Logits and labels of each sequence, tokens in time-major order: token 0 of frame 0, token 1 of frame 0, ...

        Logits are None if not wanted, and never for the last sequence. The predicted tokens come first; a layout may
        have an end id behind them, and as the last class. Raises UserError if the layout does not predict what is
        wanted.
        """
