"""What CLAP is trained with and judged by: the contrastive loss and retrieval recall (Wu et al. 2023, 3.1 and 4.1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

RECALL_AT = (1, 5, 10)


def contrastive_loss(
    audio: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""],
    same: Bool[Tensor, "batch batch"],
) -> Float[Tensor, ""]:
    """Symmetric cross-entropy over the cosines of all pairs of a batch; embeddings are L2-normalised.

    `same[i, j]` says that caption j also fits sound i (the same sentence): such pairs share the target.
    """
    logits = scale * audio @ text.T
    targets = same.to(logits.dtype)
    by_audio = F.cross_entropy(logits, targets / targets.sum(dim=1, keepdim=True))
    by_text = F.cross_entropy(logits.T, targets.T / targets.T.sum(dim=1, keepdim=True))
    return (by_audio + by_text) / 2


def retrieval_recall(
    queries: Float[Tensor, "queries dim"],
    candidates: Float[Tensor, "candidates dim"],
    fits: Bool[Tensor, "queries candidates"],
) -> dict[int, float]:
    """For 1, 5, 10: the share of queries with a fitting candidate among that many most similar ones."""
    order = (queries @ candidates.T).argsort(dim=1, descending=True)
    hits = fits.gather(1, order)
    return {most: hits[:, :most].any(dim=1).float().mean().item() for most in RECALL_AT}


def same_captions(captions: list[str]) -> Bool[Tensor, "batch batch"]:
    """Which captions are the same sentence."""
    return torch.tensor([[left == right for right in captions] for left in captions])
