"""Drafts of a prompt that compete while they are made: a particle filter, with CLAP in the place of the likelihood.

A stage that has strayed from its condition goes on straying, for what it made counts more than what it was asked for.
So after every coarse window the drafts that CLAP finds closest to their prompt go on in the place of all, each with
random numbers of its own place; at the end the best one is left. Unlike a choice among finished samples, a choice after
every window keeps mistakes from adding up. With an ear for rhythm there is a first choice among the semantic tokens of
the whole piece, which tell the rhythm before there is any sound.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.models.piece import Known, Piece
from open_musiclm.models.timeline import GeneratedTrack, ticks_in

SURVIVING_SHARE = 1 / 4


@dataclass(frozen=True)
class Jury:
    """What tells, of all rows of a piece, how close they are to their prompts.

    `closeness` is told sound; `promise`, where there is an ear for rhythm, the semantic tokens of what is to come.
    """

    closeness: Callable[[Float[Tensor, "batch samples"]], Float[Tensor, "batch"]]
    promise: Callable[[Int[Tensor, "batch time"]], Float[Tensor, "batch"]] | None = None


def compete(piece: Piece, known: Known, num_drafts: int, jury: Jury) -> tuple[list[int], GeneratedTrack]:
    """The rows that are left, one of every `num_drafts` of a piece, and their coarse tokens.

    The jury hears what is there of the new music, as much as CLAP hears at once.
    """
    semantic, coarse = piece.drafts(known)
    surviving = max(round(num_drafts * SURVIVING_SHARE), 1)
    heard = ticks_in(piece.config.global_cfg.clap_audio_length_seconds, piece.config)

    def by_draft(values: Float[Tensor, "batch"]) -> Float[Tensor, "groups drafts"]:
        return values.cpu().unflatten(0, (-1, num_drafts))

    def close(end: int) -> Float[Tensor, "groups drafts"]:
        return by_draft(jury.closeness(piece.decoded([coarse], max(known.ticks, end - heard), end)))

    if jury.promise is not None:
        written = semantic.between(known.ticks, known.ticks + piece.new_ticks)[..., 0]
        semantic.choose(survivors(by_draft(jury.promise(written)), surviving, num_drafts))
    *earlier, last = coarse.ends()
    for end in earlier:
        chosen = survivors(close(end), surviving, num_drafts)
        semantic.choose(chosen)
        coarse.choose(chosen)
    left = survivors(close(last), 1, 1)
    coarse.choose(left)
    return left.tolist(), coarse


def survivors(closeness: Float[Tensor, "groups drafts"], surviving: int, wanted: int) -> Int[Tensor, "places"]:
    """The rows of the `surviving` closest drafts of every group, repeated in turn until each group has `wanted`."""
    groups, drafts = closeness.shape
    best = closeness.topk(surviving, dim=1).indices
    repeated = best.repeat(1, -(-wanted // surviving))[:, :wanted]
    return (repeated + drafts * torch.arange(groups)[:, None]).flatten()
