"""Judges learn from the labelled clips of demo corpora, as they are and as a codec and a stage may leave them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.classifier import SAMPLE_HZ, Judge
from demo.token_exchange import exchanged
from open_musiclm.audio import fit_length, read_sound, resampled, samples_of
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

Wave = Float[Tensor, "samples"]
Codes = Int[Tensor, "1 time quantizers"]

MOST_EXCHANGED, EXCHANGED_NEARBY = 0.5, 8  # of the tokens; time steps
WAYS = 4  # that a judge hears each clip


@dataclass(frozen=True)
class LabelledClip:
    """A sound file that one family of instruments plays."""

    path: Path
    family: str
    tempo: str

    def wave(self, seconds: float) -> Wave:
        """Its first `seconds` at `SAMPLE_HZ`; a shorter one ends with silence. Raises UserError."""
        return fit_length(resampled(read_sound(self.path), SAMPLE_HZ), samples_of(seconds, SAMPLE_HZ))


def labelled_clips(folder: Path) -> list[LabelledClip]:
    """The clips of a corpus's captions.jsonl whose instruments are one family. Raises UserError."""
    try:
        lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{folder}: no captions.jsonl; make a corpus with scripts/make_demo_corpus.py") from error
    clips = [
        LabelledClip(folder / clip["file"], clip["instrument_family"], clip["tempo_class"])
        for clip in map(json.loads, lines)
        if clip["instrument_family"] not in ("mixed", "bass")
    ]
    if not clips:
        raise UserError(f"{folder}: no clip there is of one instrument family")
    return clips


def trained_judge(tokenizer: MusicTokenizer, coarse: int, clips: Sequence[LabelledClip], seconds: float) -> Judge:
    """A judge that heard the first `seconds` of each clip as they are, through the codec, through its `coarse` first
    codebooks, and through these with some of the tokens exchanged.

    It is to hear what plays, and not to mistake the codec, how little of it is used, or its noise for a sound.
    """
    families = [clip.family for clip in clips for _ in range(WAYS)]
    tempi = [clip.tempo for clip in clips for _ in range(WAYS)]
    return Judge().fit(_ways(tokenizer, coarse, clips, seconds), families, tempi)


def _ways(tokenizer: MusicTokenizer, coarse: int, clips: Sequence[LabelledClip], seconds: float) -> Iterator[Wave]:
    """`WAYS` waves of each clip, one clip after the other: hours of sound do not fit into memory."""
    generator = torch.Generator().manual_seed(0)
    for clip in clips:
        wave = clip.wave(seconds)
        codes = encoded(tokenizer, wave)
        yield wave
        yield decoded(tokenizer, codes, wave)
        yield decoded(tokenizer, codes[..., :coarse], wave)
        yield decoded(tokenizer, _disturbed(codes, generator)[..., :coarse], wave)


def encoded(tokenizer: MusicTokenizer, wave: Wave) -> Codes:
    """The codec's tokens of a wave."""
    return tokenizer.codec.encode(wave[None])


def decoded(tokenizer: MusicTokenizer, codes: Codes, like: Wave) -> Wave:
    """What the codec makes of tokens, as long as another wave; the first codebooks alone give a coarser one."""
    return fit_length(tokenizer.codec.decode(codes)[0].cpu(), len(like))


def _disturbed(codes: Codes, generator: torch.Generator) -> Codes:
    """Up to half of the tokens exchanged for others nearby, or from anywhere in the clip."""
    share, nearby = torch.rand(2, generator=generator).tolist()
    reach = EXCHANGED_NEARBY if nearby < 0.5 else codes.shape[1]
    return exchanged(codes[0].cpu(), MOST_EXCHANGED * share, reach, generator)[None].to(codes.device)
