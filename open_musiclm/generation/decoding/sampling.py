"""From logits to the next token: guidance, top k, top p, temperature and Gumbel noise."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import GenerationConfig, StageName
from open_musiclm.errors import UserError

DEFAULT_TOP_SHARE = 0.1


@dataclass(frozen=True)
class Sampling:
    """How one stage samples its tokens; the fields are those of `GenerationConfig`.

    Raises UserError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    cfg_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature {self.temperature}: expected a number of at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k {self.top_k}: expected at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p}: expected a number above 0, at most 1")
        if not 0 <= self.cfg_scale < float("inf"):
            raise UserError(f"cfg_scale {self.cfg_scale}: expected a number of at least 0")


def sampling_of(config: GenerationConfig, stage: StageName) -> Sampling:
    """How `stage` samples, as a generation config says."""
    return Sampling(config.temperature(stage), config.top_k, config.top_p, config.guidance(stage))


def guided(logits: Float[Tensor, "rows classes"], sampling: Sampling) -> Float[Tensor, "batch classes"]:
    """Logits to sample from; with guidance `logits` has two rows per request, the second half without condition."""
    if sampling.cfg_scale == 1:
        return logits
    conditional, unconditional = logits.chunk(2)
    return torch.lerp(unconditional, conditional, sampling.cfg_scale)


def sample(
    logits: Float[Tensor, "batch classes"], noise: Float[Tensor, "batch classes"], sampling: Sampling
) -> Int[Tensor, "batch"]:
    """One id per row. `noise` is Gumbel-distributed."""
    logits = logits.float()
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = _keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = _keep_top_p(logits / sampling.temperature, sampling.top_p) * sampling.temperature
    return torch.add(noise, logits, alpha=1 / sampling.temperature).argmax(dim=-1)


def sample_rng(seed: int, prompt: str, number: int, stage: str) -> torch.Generator:
    """The random numbers of one sample in one stage; they do not depend on the batch the sample is in."""
    digest = hashlib.sha256(f"{seed}\n{number}\n{stage}\n{prompt}".encode(errors="surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def gumbel_noise(
    rngs: Sequence[torch.Generator], tokens: int, classes: int, device: torch.device
) -> Float[Tensor, "tokens batch classes"]:
    """Noise for the next `tokens` tokens of every rng; generated on the CPU, so that it is the same on every device."""
    uniform = torch.stack([torch.rand(tokens, classes, generator=rng) for rng in rngs], dim=1)
    tiny = torch.finfo(torch.float32).tiny
    return (-torch.log((-torch.log(uniform.clamp(min=tiny))).clamp(min=tiny))).to(device)


def _keep_top_k(logits: Float[Tensor, "batch ids"], top_k: int | None) -> Float[Tensor, "batch ids"]:
    ids = logits.shape[-1]
    kept = max(int(DEFAULT_TOP_SHARE * (ids + 1)), 1) if top_k is None else min(top_k, ids)
    least = logits.topk(kept, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, float("-inf"))


def _keep_top_p(logits: Float[Tensor, "batch ids"], top_p: float) -> Float[Tensor, "batch ids"]:
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    dropped = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), float("-inf"))
