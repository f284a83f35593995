"""Random numbers that belong to an example, not to a process or a batch.

They are hashed from the example's seed and their own place, so that dropout and forgetful masking are the same on every
device, in a batch of any size, on any number of processes, and when a block is computed again for its gradient.
"""

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor, nn

# An odd multiplier and a shift to the right, in turn, mix 32 bits well (the search of C. Wellons, 2018).
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
_STEP = 0x9E3779B9 - (1 << 32)  # the golden ratio: far apart for numbers that lie together

Seeds = Int32[Tensor, "batch"]


def hash32(x: Int32[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
    """A hash of each element: whole numbers of 32 bits that look uniform."""
    x = (x ^ _shifted(x, 16)) * _FIRST
    x = (x ^ _shifted(x, 15)) * _SECOND
    return x ^ _shifted(x, 16)


def derive_seeds(seeds: Seeds, number: int) -> Seeds:
    """Other seeds of the same examples, for purpose or layer `number`."""
    return hash32(seeds * _STEP + (number + 1))


def random_int32(seeds: Seeds, count: int) -> Int32[Tensor, "batch count"]:
    """`count` uniform whole numbers of 32 bits for every example."""
    places = torch.arange(count, dtype=torch.int32, device=seeds.device)
    return hash32(seeds.unsqueeze(1) + hash32(places * _STEP))


def uniform(seeds: Seeds, count: int) -> Float[Tensor, "batch count"]:
    """`count` uniform numbers from 0 to 1 for every example."""
    return random_int32(seeds, count).float() / 2**32 + 0.5


def keep_mask(seeds: Seeds, time: int, channels: int, share: float) -> Bool[Tensor, "batch time channels"]:
    """True for a `share` of all places at random."""
    rows = random_int32(seeds, time).unsqueeze(2)
    columns = hash32(torch.arange(1, channels + 1, dtype=torch.int32, device=seeds.device) * _STEP)
    x = (rows ^ columns) * _FIRST
    return (x ^ _shifted(x, 15)).mul_(_SECOND) < round((share - 0.5) * 2**32)


class ExampleDropout(nn.Module):
    """Dropout whose choice belongs to the example."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(
        self, x: Float[Tensor, "batch time channels"], seeds: Seeds | None
    ) -> Float[Tensor, "batch time channels"]:
        """Dropout of x in training mode with `seeds`; the rest is scaled up."""
        if not self.training or self.probability == 0 or seeds is None:
            return x
        share = 1 - self.probability
        return torch.where(keep_mask(seeds, x.shape[1], x.shape[2], share), x * (1 / share), 0)


def _shifted(x: Int32[Tensor, "*shape"], bits: int) -> Int32[Tensor, "*shape"]:
    """x >> bits of the unsigned number; torch's own shift keeps the sign."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)
