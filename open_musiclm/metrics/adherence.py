"""How well sounds fit their prompts: cosines of CLAP embeddings, and the ranks of prompts and sounds among others.

With CLAP the mean cosine is the CLAP score, with the model's own text and sound towers MusicLM's cycle consistency
(Agostinelli et al. 2023, section 5.2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROWS_AT_ONCE = 1024


def cosines(sounds: Float[Tensor, "clips dim"], prompts: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips"]:
    """The cosine of each sound and its prompt."""
    left, right = (torch.nn.functional.normalize(vectors.double(), dim=1) for vectors in (sounds, prompts))
    return (left * right).sum(dim=1)


def prompt_ranks(
    sounds: Float[Tensor, "clips dim"], prompts: Float[Tensor, "prompts dim"], own: Sequence[int]
) -> Int[Tensor, "clips"]:
    """The rank of each sound's own prompt, `own[clip]`, among all prompts by cosine; 1 is the best.

    Prompts that are as close count as closer.
    """
    right = torch.nn.functional.normalize(prompts.double(), dim=1)
    ranks, wanted = [], torch.tensor(own).long()
    for rows, places in zip(sounds.split(_ROWS_AT_ONCE), wanted.split(_ROWS_AT_ONCE), strict=True):
        similarities = torch.nn.functional.normalize(rows.double(), dim=1) @ right.T
        ranks.append((similarities >= similarities.gather(1, places.unsqueeze(1))).sum(1))
    return torch.cat(ranks)


def sound_ranks(
    sounds: Float[Tensor, "clips dim"], prompts: Float[Tensor, "prompts dim"], own: Sequence[int]
) -> Int[Tensor, "prompts"]:
    """The rank of the best of each prompt's own sounds among all sounds by cosine; 1 is the best.

    Foreign sounds that are as close count as closer. Every prompt has a sound.
    """
    right = torch.nn.functional.normalize(sounds.double(), dim=1)
    owner, ranks = torch.tensor(own).long(), []
    for first, rows in zip(range(0, len(prompts), _ROWS_AT_ONCE), prompts.split(_ROWS_AT_ONCE), strict=True):
        similarities = torch.nn.functional.normalize(rows.double(), dim=1) @ right.T
        is_own = owner.unsqueeze(0) == torch.arange(first, first + len(rows)).unsqueeze(1)
        best = similarities.masked_fill(~is_own, float("-inf")).amax(1, keepdim=True)
        ranks.append(1 + ((similarities >= best) & ~is_own).sum(1))
    return torch.cat(ranks)
