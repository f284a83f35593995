"""Drafts of a prompt that compete while they are made: a particle filter, with CLAP in the place of the likelihood.

A stage that has strayed from its condition goes on straying, for what it made counts more than what it was asked for.
So after every coarse window the drafts that CLAP finds closest to their prompt go on in the place of all, each with
random numbers of its own place; at the end the best one is left. Unlike a choice among finished samples, a choice after
every window keeps mistakes from adding up.

Before that, where there is an ear for rhythm, sketches compete: semantic tokens of the whole piece, which take a small
part of the time of coarse ones and tell the rhythm before there is any sound.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.generation.planner import GeneratedTrack, ticks_in
from open_musiclm.generation.session import Known, Piece

SURVIVING_SHARE = 1 / 4

Closeness = Callable[[Float[Tensor, "batch samples"]], Float[Tensor, "batch"]]
Promise = Callable[[Int[Tensor, "batch time"]], Float[Tensor, "batch"]]


def best_sketches(
    piece: Piece, known: Known, num_sketches: int, num_drafts: int, promise: Promise
) -> Int[Tensor, "drafts time 1"]:
    """Semantic tokens for `num_drafts` drafts in the place of every `num_sketches` rows of a piece.

    `promise` is told the tokens of the new music, all rows. As large a share of drafts begins with different ones as
    will survive a window.
    """
    semantic = piece.sketches(known)
    promised = promise(semantic[:, piece.semantic_steps(known.ticks) :, 0]).cpu().unflatten(0, (-1, num_sketches))
    return semantic[survivors(promised, min(surviving(num_drafts), num_sketches), num_drafts)]


def compete(
    piece: Piece, known: Known, num_drafts: int, closeness: Closeness, sketches: Int[Tensor, "batch time 1"] | None
) -> tuple[list[int], GeneratedTrack]:
    """The rows that are left, one of every `num_drafts` of a piece, and their coarse tokens.

    The semantic tokens are `sketches`, or made as they are needed. `closeness` is told what is there of the new music,
    all rows, as much as CLAP hears at once.
    """
    semantic, coarse = piece.drafts(known, sketches)
    heard = ticks_in(piece.config.global_cfg.clap_audio_length_seconds, piece.config)

    def close(end: int) -> Float[Tensor, "groups drafts"]:
        wave = piece.decoded([coarse], max(known.ticks, end - heard), end)
        return closeness(wave).cpu().unflatten(0, (-1, num_drafts))

    *earlier, last = coarse.ends()
    for end in earlier:
        chosen = survivors(close(end), surviving(num_drafts), num_drafts)
        semantic.choose(chosen)
        coarse.choose(chosen)
    left = survivors(close(last), 1, 1)
    coarse.choose(left)
    return left.tolist(), coarse


def surviving(num_drafts: int) -> int:
    """How many of so many drafts go on after a window."""
    return max(round(num_drafts * SURVIVING_SHARE), 1)


def survivors(closeness: Float[Tensor, "groups drafts"], best: int, wanted: int) -> Int[Tensor, "places"]:
    """The rows of the `best` closest drafts of every group, repeated in turn until each group has `wanted`."""
    groups, drafts = closeness.shape
    places = closeness.topk(best, dim=1).indices
    repeated = places.repeat(1, -(-wanted // best))[:, :wanted]
    return (repeated + drafts * torch.arange(groups)[:, None]).flatten()
