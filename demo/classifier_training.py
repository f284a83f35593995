"""Fits the classifier to labelled clips of demo corpora, clean and degraded as a codec and a stage degrade them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.classifier import SAMPLE_HZ, PromptClassifier
from demo.token_corruption import corrupted
from open_musiclm.audio import fit_length, read_sound, resampled, samples_of
from open_musiclm.config.json_files import read_json_lines
from open_musiclm.data.caption_lines import CAPTIONS_NAME
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

Wave = Float[Tensor, "samples"]
Codes = Int[Tensor, "1 time quantizers"]

_LARGEST_CORRUPTED_SHARE, _NEARBY_STEPS = 0.5, 8
_LABELS = ("file", "instrument_family", "tempo_class")
_VERSIONS = 4  # of each clip


@dataclass(frozen=True)
class LabelledClip:
    """A sound file whose instruments are of one family."""

    path: Path
    family: str
    tempo: str

    def wave(self, seconds: float) -> Wave:
        """Its first `seconds` at `SAMPLE_HZ`; a shorter one is padded with silence. Raises UserError."""
        return fit_length(resampled(read_sound(self.path), SAMPLE_HZ), samples_of(seconds, SAMPLE_HZ))


def labelled_clips(folder: Path) -> list[LabelledClip]:
    """The clips of a corpus's captions.jsonl whose instruments are one family. Raises UserError."""
    path = folder / CAPTIONS_NAME
    if not path.exists():
        raise UserError(f"{folder}: no captions.jsonl; make a corpus with scripts/make_demo_corpus.py")
    clips = []
    for place, clip in read_json_lines(path):
        labels = [clip.get(key) for key in _LABELS] if isinstance(clip, dict) else []
        texts = [label for label in labels if isinstance(label, str)]
        if len(texts) != len(_LABELS):
            raise UserError(f"{place}: expected an object with the texts {', '.join(_LABELS)}; make the corpus again")
        file, family, tempo = texts
        if family not in ("mixed", "bass"):
            clips.append(LabelledClip(folder / file, family, tempo))
    if not clips:
        raise UserError(f"{folder}: holds no clip whose instruments are of one family")
    return clips


def fit_classifier(
    tokenizer: MusicTokenizer, coarse: int, clips: Sequence[LabelledClip], seconds: float
) -> PromptClassifier:
    """A classifier fitted to the first `seconds` of each clip: clean, through the codec, through its `coarse` first
    codebooks, and through these with some of the tokens corrupted.

    So it does not take the codec's noise, or missing codebooks, for an instrument.
    """
    families = [clip.family for clip in clips for _ in range(_VERSIONS)]
    tempi = [clip.tempo for clip in clips for _ in range(_VERSIONS)]
    return PromptClassifier().fit(_versions(tokenizer, coarse, clips, seconds), families, tempi)


def _versions(tokenizer: MusicTokenizer, coarse: int, clips: Sequence[LabelledClip], seconds: float) -> Iterator[Wave]:
    """`_VERSIONS` waves of each clip, one after the other: hours of sound do not fit into memory."""
    rng = torch.Generator().manual_seed(0)
    for clip in clips:
        wave = clip.wave(seconds)
        codes = encode(tokenizer, wave)
        yield wave
        yield decode(tokenizer, codes, wave)
        yield decode(tokenizer, codes[..., :coarse], wave)
        yield decode(tokenizer, _disturb(codes, rng)[..., :coarse], wave)


def encode(tokenizer: MusicTokenizer, wave: Wave) -> Codes:
    """The codec's tokens of a wave."""
    return tokenizer.codec.encode(wave[None])


def decode(tokenizer: MusicTokenizer, codes: Codes, like: Wave) -> Wave:
    """The wave of tokens of all codebooks or of the first ones, cut or padded to the length of another wave."""
    return fit_length(tokenizer.codec.decode(codes)[0].cpu(), len(like))


def _disturb(codes: Codes, rng: torch.Generator) -> Codes:
    """Exchanges up to half of the tokens for others nearby, or from anywhere in the clip."""
    share, nearby = torch.rand(2, generator=rng).tolist()
    reach = _NEARBY_STEPS if nearby < 0.5 else codes.shape[1]
    return corrupted(codes[0].cpu(), _LARGEST_CORRUPTED_SHARE * share, reach, rng)[None].to(codes.device)
