"""Means over a validation set that several processes share."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor


class Means:
    """Means of named values over the examples of all processes: `add` every batch, then all ask for `over_all`."""

    def __init__(self, accelerator: Accelerator, names: Sequence[str]) -> None:
        self.accelerator, self.names = accelerator, names
        self._rows: list[Float[Tensor, "values"]] = []

    def add(self, values: Sequence[Tensor], count: int) -> None:
        """The means over `count` examples (or frames, where those are what is counted)."""
        stacked = torch.stack([value.detach().float() for value in values])
        self._rows.append(torch.cat((stacked * count, stacked.new_tensor([count]))))

    def over_all(self) -> dict[str, float]:
        """Every name's mean; NaN where no process had an example."""
        rows = [torch.zeros(len(self.names) + 1), *(row.cpu() for row in self._rows)]
        sums = torch.stack(rows).double().sum(dim=0).float()  # in float32 the sums of many batches would drift
        *totals, count = self.accelerator.reduce(sums.to(self.accelerator.device), reduction="sum").tolist()
        return {name: total / count if count else float("nan") for name, total in zip(self.names, totals, strict=True)}
