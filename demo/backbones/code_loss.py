"""A loss that brings the embeddings of sounds to codes of the CLAP quantizer that mean their family and tempo.

A style sound reaches the stages only as such a code. A code means the family and the tempo of the nearest of many
sentences; the text tower must be frozen.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from demo.backbones.matching_losses import embed_sentences
from demo.corpus.corpus import Clip
from demo.corpus.excerpt import TEMPI
from demo.corpus.instruments import INSTRUMENTS
from demo.corpus.wordings import tempo_sentences
from open_musiclm.tokenizers.clap_directory import ClapParts
from open_musiclm.tokenizers.rvq import ClapQuantizer

_SENTENCES = 4  # for each instrument and tempo
_SCALE = 12.0  # of squared distances
_TEMPO = 0.5  # weight of family and tempo together, relative to the family alone


class CodeLoss:
    """The loss for the first codebook of a quantizer, with the sentences of a CLAP's text tower."""

    @torch.no_grad()
    def __init__(self, clap: ClapParts, quantizer: ClapQuantizer) -> None:
        rng, sentences, meanings = random.Random(0), [], []
        for instrument in (instrument for instrument in INSTRUMENTS if instrument.family != "bass"):
            for _ in range(_SENTENCES):
                sentences += tempo_sentences(instrument, rng)
                meanings += [(instrument.family, tempo) for tempo in TEMPI]
        self.codes = quantizer.residual_vq.codebooks[0].clone()
        nearest = (functional.normalize(self.codes, dim=1) @ embed_sentences(clap, sentences).T).argmax(dim=1)
        self.meanings = [meanings[sentence] for sentence in nearest.tolist()]

    def __call__(self, sounds: Float[Tensor, "batch dim"], clips: Sequence[Clip]) -> Float[Tensor, ""]:
        """The mean over the clips of one family; 0 without any. `sounds` have length 1."""
        families = {family for family, _ in self.meanings}
        single = [number for number, clip in enumerate(clips) if clip.instrument_family in families]
        if not single:
            return 0 * sounds.sum()
        distances = torch.cdist(sounds[single], self.codes).square()
        likely = functional.log_softmax(-_SCALE * distances, dim=1)
        family = self._codes_of([(clips[number].instrument_family,) for number in single])
        both = self._codes_of([(clips[number].instrument_family, clips[number].tempo_class) for number in single])
        return (_negative_log_likelihood(likely, family) + _TEMPO * _negative_log_likelihood(likely, both)).mean()

    def _codes_of(self, wanted: Sequence[tuple[str, ...]]) -> Bool[Tensor, "clips codes"]:
        """Which codes begin with what is wanted: a family, or a family and a tempo."""
        return torch.tensor([[meaning[: len(own)] == own for meaning in self.meanings] for own in wanted])


def _negative_log_likelihood(
    likely: Float[Tensor, "clips codes"], right: Bool[Tensor, "clips codes"]
) -> Float[Tensor, "clips"]:
    """Minus the log of the probability of the right codes together; 0 where there is none."""
    loss = -likely.masked_fill(~right, -torch.inf).logsumexp(dim=1)
    return torch.where(right.any(dim=1), loss, torch.zeros_like(loss))
