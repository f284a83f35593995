"""Losses that train CLAP to match sounds with instrument names and tempi.

The contrast of sounds and captions (Wu et al. 2023, 3.1) separates what a batch happens to hold, which for a small
CLAP is instruments. Two more losses classify each sound: among sentences for every family and tempo, and among
sentences that differ in the tempo alone.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from demo.corpus.corpus import Clip
from demo.corpus.excerpt import TEMPI
from demo.corpus.instruments import INSTRUMENTS, Instrument
from demo.corpus.wordings import reword, tempo_sentences
from open_musiclm.tokenizers.clap_directory import ClapParts
from open_musiclm.training.backbones.clap_losses import Pairs, caption_numbers, contrastive_loss

_FAMILIES = sorted({instrument.family for instrument in INSTRUMENTS})
_BY_NAME = {instrument.name: instrument for instrument in INSTRUMENTS}
_SCALE, _SMOOTHING = 20.0, 0.05
_LARGEST_TEMPO_COSINE = 0.3  # of sentences that differ in the tempo alone
_CONTRAST, _TEMPO, _ALIGNMENT, _SEPARATION = 0.5, 1.5, 0.3, 3.0  # weights relative to "family and tempo"


def matching_losses(
    clap: ClapParts, sounds: Float[Tensor, "batch dim"], clips: Sequence[Clip], rng: random.Random
) -> dict[str, Float[Tensor, ""]]:
    """Weighted losses by name, to be summed; `sounds` are the embeddings of `clips`, of length 1.

    Clips of several families take part in the contrast only.
    """
    captions = [reword(rng.choice(clip.captions), rng) for clip in clips]
    single = [number for number, clip in enumerate(clips) if clip.instrument_family in _FAMILIES]
    others = [tempo_sentences(rng.choice(_instruments_of(family)), rng) for family in _FAMILIES]
    own = [tempo_sentences(_BY_NAME[clips[number].instruments[0]], rng) for number in single]
    texts = embed_sentences(clap, [*captions, *(sentence for sentences in others + own for sentence in sentences)])
    pairs = Pairs(sounds, texts[: len(clips)], caption_numbers(captions))
    by_tempo = texts[len(clips) :].unflatten(0, (-1, len(TEMPI)))
    other_texts, own_texts = by_tempo[: len(others)], by_tempo[len(others) :]
    contrast = _CONTRAST * contrastive_loss(pairs, pairs, torch.tensor(_SCALE))
    if not single:
        return {"contrast": contrast}
    family = torch.tensor([_FAMILIES.index(clips[number].instrument_family) for number in single])
    tempo = torch.tensor([TEMPI.index(clips[number].tempo_class) for number in single])
    to_own = torch.einsum("bd,btd->bt", sounds[single], own_texts)
    to_others = torch.einsum("bd,ftd->bft", sounds[single], other_texts)
    is_own = functional.one_hot(family, len(_FAMILIES)).bool()[..., None]
    to_all = torch.where(is_own, to_own[:, None], to_others).flatten(1)
    between_tempi = (own_texts * own_texts.roll(1, 1)).sum(dim=-1)
    return {
        "contrast": contrast,
        "family and tempo": _cross_entropy(to_all, family * len(TEMPI) + tempo),
        "tempo": _TEMPO * _cross_entropy(to_own, tempo),
        "alignment": _ALIGNMENT * (1 - to_own.gather(1, tempo[:, None])).mean(),
        "separation": _SEPARATION * functional.relu(between_tempi - _LARGEST_TEMPO_COSINE).mean(),
    }


def _instruments_of(family: str) -> list[Instrument]:
    return [instrument for instrument in INSTRUMENTS if instrument.family == family]


def embed_sentences(clap: ClapParts, sentences: list[str]) -> Float[Tensor, "sentences dim"]:
    """CLAP's embeddings of sentences, of length 1."""
    tokens = clap.tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    return clap.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output


def _cross_entropy(cosines: Float[Tensor, "sounds sentences"], right: Int[Tensor, "sounds"]) -> Float[Tensor, ""]:
    return functional.cross_entropy(_SCALE * cosines, right, label_smoothing=_SMOOTHING)
