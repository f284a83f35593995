"""Judges learn from the labelled clips of demo corpora, as they are and as a codec and a stage may leave them."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.audio import fit_length, read_sound, resampled, samples_of
from open_musiclm.data.token_exchange import exchanged
from open_musiclm.errors import UserError
from open_musiclm.evaluation.judge import SAMPLE_HZ, Judge
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

Wave = Float[Tensor, "samples"]

MOST_EXCHANGED, EXCHANGED_NEARBY = 0.5, 8  # of the tokens; time steps


def labelled_clips(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """The lines of a corpus's captions.jsonl whose instruments are one family.

    Each has its clip's first `seconds` as `wave` [samples] at `SAMPLE_HZ`. Raises UserError.
    """
    try:
        lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{folder}: no captions.jsonl; make a corpus with scripts/make_demo_corpus.py") from error
    clips = [clip for clip in map(json.loads, lines) if clip["instrument_family"] not in ("mixed", "bass")]
    for clip in clips:
        wave = resampled(read_sound(folder / clip["file"]), SAMPLE_HZ)
        clip["wave"] = fit_length(wave, samples_of(seconds, SAMPLE_HZ))
    if not clips:
        raise UserError(f"{folder}: no clip there is of one instrument family")
    return clips


def trained_judge(tokenizer: MusicTokenizer, coarse: int, clips: Sequence[dict]) -> Judge:
    """A judge that heard each clip as it is, through the codec, through its `coarse` first codebooks, and through these
    with some of the tokens exchanged.

    It is to hear what plays, and not to mistake the codec, how little of it is used, or its noise for a sound.
    """
    codes = encoded(tokenizer, clips)
    generator = torch.Generator().manual_seed(0)
    disturbed = [_disturbed(code, generator) for code in codes]
    ways = ((codes, None), (codes, coarse), (disturbed, coarse))
    waves = chain((clip["wave"] for clip in clips), *(recoded(tokenizer, some, clips, books) for some, books in ways))
    labelled = [*clips] * (1 + len(ways))
    return Judge().fit(
        waves, [clip["instrument_family"] for clip in labelled], [clip["tempo_class"] for clip in labelled]
    )


def encoded(tokenizer: MusicTokenizer, clips: Sequence[dict]) -> list[Int[Tensor, "1 time quantizers"]]:
    """The codec's tokens of each clip."""
    return [tokenizer.codec.encode(clip["wave"][None]) for clip in clips]


def recoded(
    tokenizer: MusicTokenizer, codes: Sequence[Tensor], clips: Sequence[dict], books: int | None
) -> Iterator[Wave]:
    """The clips through the first `books` codebooks, or all, one after the other."""
    for code, clip in zip(codes, clips, strict=True):
        yield _decode(tokenizer, code[..., :books], clip["wave"])


def _decode(tokenizer: MusicTokenizer, codes: Int[Tensor, "1 time quantizers"], like: Wave) -> Wave:
    return fit_length(tokenizer.codec.decode(codes)[0].cpu(), len(like))


def _disturbed(code: Int[Tensor, "1 time quantizers"], generator: torch.Generator) -> Int[Tensor, "1 time quantizers"]:
    """Up to half of the tokens exchanged for others nearby, or from anywhere in the clip."""
    share, nearby = torch.rand(2, generator=generator).tolist()
    reach = EXCHANGED_NEARBY if nearby < 0.5 else code.shape[1]
    return exchanged(code[0].cpu(), MOST_EXCHANGED * share, reach, generator)[None].to(code.device)
