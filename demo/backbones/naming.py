"""Teaching CLAP to name instruments and paces: the losses of one batch of labelled sounds.

The contrast of sounds and captions (Wu et al. 2023, 3.1) tells apart what a batch happens to hold, which for a small
CLAP is instruments. Here each sound is also told among wordings of every family and pace, and among wordings that
differ in the pace alone.
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
from demo.corpus.wordings import namings, reworded
from open_musiclm.training.backbones.clap_directory import ClapDirectory
from open_musiclm.training.backbones.clap_losses import Pairs, caption_numbers, contrastive_loss

_FAMILIES = sorted({instrument.family for instrument in INSTRUMENTS})
_BY_NAME = {instrument.name: instrument for instrument in INSTRUMENTS}
_SCALE, _SMOOTHING = 20.0, 0.05
_MOST_ALIKE = 0.3  # the cosine of wordings that differ in the pace alone
_CONTRAST, _PACE, _CLOSENESS, _PARTING = 0.5, 1.5, 0.3, 3.0  # what the losses count beside that of the family


def naming_losses(
    clap: ClapDirectory, heard: Float[Tensor, "batch time mels"], clips: Sequence[Clip], chance: random.Random
) -> dict[str, Float[Tensor, ""]]:
    """Losses by name, to be added up; `heard` are spectrograms of `clips`. Clips of several families are contrasted
    only."""
    sounds = clap.model.get_audio_features(heard[:, None]).pooler_output
    captions = [reworded(chance.choice(clip.captions), chance) for clip in clips]
    single = [number for number, clip in enumerate(clips) if clip.instrument_family in _FAMILIES]
    others = [namings(chance.choice(_players(family)), chance) for family in _FAMILIES]
    own = [namings(_BY_NAME[clips[number].instruments[0]], chance) for number in single]
    said = _said(clap, [*captions, *(sentence for sentences in others + own for sentence in sentences)])
    pairs = Pairs(sounds, said[: len(clips)], caption_numbers(captions))
    by_pace = said[len(clips) :].unflatten(0, (-1, len(TEMPI)))
    others_said, own_said = by_pace[: len(others)], by_pace[len(others) :]

    family = torch.tensor([_FAMILIES.index(clips[number].instrument_family) for number in single])
    pace = torch.tensor([TEMPI.index(clips[number].tempo_class) for number in single])
    to_own = torch.einsum("bd,bpd->bp", sounds[single], own_said)
    to_others = torch.einsum("bd,fpd->bfp", sounds[single], others_said)
    is_own = functional.one_hot(family, len(_FAMILIES)).bool()[..., None]
    to_all = torch.where(is_own, to_own[:, None], to_others).flatten(1)
    alike = (own_said * own_said.roll(1, 1)).sum(dim=-1)
    return {
        "contrast": _CONTRAST * contrastive_loss(pairs, pairs, torch.tensor(_SCALE)),
        "family and pace": _cross_entropy(to_all, family * len(TEMPI) + pace),
        "pace": _PACE * _cross_entropy(to_own, pace),
        "closeness": _CLOSENESS * (1 - to_own.gather(1, pace[:, None])).mean(),
        "parting": _PARTING * functional.relu(alike - _MOST_ALIKE).mean(),
    }


def _players(family: str) -> list[Instrument]:
    return [instrument for instrument in INSTRUMENTS if instrument.family == family]


def _said(clap: ClapDirectory, sentences: list[str]) -> Float[Tensor, "sentences dim"]:
    tokens = clap.tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    return clap.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output


def _cross_entropy(cosines: Float[Tensor, "sounds wordings"], right: Int[Tensor, "sounds"]) -> Float[Tensor, ""]:
    return functional.cross_entropy(_SCALE * cosines, right, label_smoothing=_SMOOTHING)
