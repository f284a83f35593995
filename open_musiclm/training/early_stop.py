"""Training against validation loss: when to stop, and when a run overfits."""

import math

from open_musiclm.config.fields import NonNegativeInt
from open_musiclm.config.json_files import Section

_RISE = 1.01  # of the validation loss over its lowest; a smaller one may be noise
_VALIDATIONS = 2  # in a row that have to show it


class LossHistory(Section):
    """The losses of a run so far, part of a checkpoint's state, so that a resumed run decides alike.

    The sum and count are of training losses since the last validation.
    """

    training_sum: float = 0.0
    training_count: NonNegativeInt = 0
    lowest: float | None = None
    lowest_step: NonNegativeInt | None = None
    training_at_lowest: float | None = None
    validations_since: NonNegativeInt = 0
    last: float | None = None
    training_at_last: float | None = None

    def trained(self, loss: float) -> "LossHistory":
        """The history after a step; one whose loss is not finite does not count."""
        if not math.isfinite(loss):
            return self
        return self.model_copy(
            update={"training_sum": self.training_sum + loss, "training_count": self.training_count + 1}
        )

    def validated(self, step: int, loss: float) -> "LossHistory":
        """The history after the validation of `step`."""
        training = self.training_sum / self.training_count if self.training_count else None
        changes: dict[str, object] = {"training_sum": 0.0, "training_count": 0, "training_at_last": training}
        changes |= {"last": loss if math.isfinite(loss) else None, "validations_since": self.validations_since + 1}
        if math.isfinite(loss) and (self.lowest is None or loss < self.lowest):
            changes |= {"lowest": loss, "lowest_step": step, "training_at_lowest": training, "validations_since": 0}
        return self.model_copy(update=changes)

    def is_lowest(self, step: int) -> bool:
        """Whether the validation of `step` gave the lowest loss so far."""
        return self.lowest_step == step

    def should_stop(self, patience: int | None) -> bool:
        """Whether `patience` validations in a row gave no lower loss."""
        return patience is not None and self.validations_since >= patience

    @property
    def overfits(self) -> bool:
        """Whether training losses still fall while those of validation have risen for some validations."""
        values = (self.lowest, self.last, self.training_at_lowest, self.training_at_last)
        if self.validations_since < _VALIDATIONS or any(value is None for value in values):
            return False
        lowest, last, training_before, training_now = (value or 0.0 for value in values)
        return last > lowest * _RISE and training_now < training_before

    def describe(self) -> str:
        """One line about how a run overfits."""
        return (
            f"overfitting: since step {self.lowest_step} the training loss fell from {self.training_at_lowest:.4g} to "
            f"{self.training_at_last:.4g}, and the validation loss rose from {self.lowest:.4g} to {self.last:.4g}: it "
            "memorizes; stop at that step, or use more music, a lower lora rank, dropout or augment"
        )
