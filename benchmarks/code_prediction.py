"""How hard it is to predict the codes of a codec: nats per frame, given the previous frame.

A small network sees the codes of the previous frame and the coarser codes of the same frame, like an acoustic stage.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

_DIM, _HIDDEN, _BATCH = 128, 512, 512


class _Predictor(nn.Module):
    def __init__(self, quantizers: int, codes: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Embedding(codes, _DIM) for _ in range(quantizers))
        self.coarser = nn.ModuleList(nn.Embedding(codes, _DIM) for _ in range(quantizers - 1))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(_DIM, _HIDDEN), nn.GELU(), nn.Dropout(0.1), nn.Linear(_HIDDEN, codes))
            for _ in range(quantizers)
        )

    def forward(
        self, before: Int[Tensor, "frames quantizers"], frame: Int[Tensor, "frames quantizers"]
    ) -> Float[Tensor, "quantizers"]:
        """The mean cross-entropy of each codebook, in nats."""
        hidden = torch.stack([table(before[:, place]) for place, table in enumerate(self.before)]).sum(0)
        losses = []
        for place, network in enumerate(self.networks):
            losses.append(F.cross_entropy(network(hidden), frame[:, place]))
            if place < len(self.coarser):
                hidden = hidden + self.coarser[place](frame[:, place])
        return torch.stack(losses)


def nats_per_frame(
    training: Sequence[Int[Tensor, "time quantizers"]],
    held_out: Sequence[Int[Tensor, "time quantizers"]],
    codebook_size: int,
    steps: int,
) -> list[float]:
    """Nats per codebook on held-out codes, the minimum over the training."""
    torch.manual_seed(0)
    pairs, pairs_held_out = _pairs(training), _pairs(held_out)
    model = _Predictor(training[0].shape[1], codebook_size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    best = [float("inf")]
    for step in range(1, steps + 1):
        places = torch.randint(len(pairs[0]), (_BATCH,))
        optimizer.zero_grad()
        model(pairs[0][places], pairs[1][places]).sum().backward()
        optimizer.step()
        if step % max(steps // 10, 1) == 0:
            with torch.no_grad():
                found = model.eval()(*pairs_held_out).tolist()
            model.train()
            best = min(best, found, key=sum)
    return best


def _pairs(codes: Sequence[Int[Tensor, "time quantizers"]]) -> tuple[Tensor, Tensor]:
    return torch.cat([some[:-1] for some in codes]).long(), torch.cat([some[1:] for some in codes]).long()
