"""Trains CLAP's text tower so that instruments of different families do not share codes of the CLAP quantizer.

A prompt reaches the stages only as such codes. An instrument whose sentences for a tempo mostly get codes of another
family is played by that one at this tempo. These sentences are brought to those of the nearest instrument of its own
family; all others stay where they are, so stages that were trained with the tower go on to understand it.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from demo.backbones.matching_losses import embed_sentences
from demo.corpus.excerpt import TEMPI, TempoClass
from demo.corpus.instruments import INSTRUMENTS, Instrument
from demo.corpus.wordings import reword, tempo_sentences
from open_musiclm.tokenizers.clap_directory import ClapParts
from open_musiclm.tokenizers.rvq import ClapQuantizer

RATE, BATCH, REPORT_EVERY = 2e-4, 128, 50
_DRAWS = 12  # of sentences for each instrument, at three tempi
_MOST_OF_ANOTHER = 0.5  # share of an instrument's sentences for a tempo
InstrumentAtTempo = tuple[Instrument, TempoClass]
_KNOWN = tuple(instrument for instrument in INSTRUMENTS if instrument.family != "bass")


@torch.no_grad()
def confused_instruments(
    clap: ClapParts, quantizer: ClapQuantizer, not_played: Collection[Instrument] = ()
) -> dict[InstrumentAtTempo, Instrument]:
    """Maps each instrument, at each tempo where it is confused, to the nearest of its family that is not.

    A code belongs to the family with most sentences that get it. An instrument is confused at a tempo if most of its
    sentences for it get codes of other families. So is one that is `not_played` by the stages, whatever its codes.
    It is left out if all instruments of its family are confused there.
    """
    rng, codes, means = random.Random(0), {}, {}
    for instrument in _KNOWN:
        drawn = [tempo_sentences(instrument, rng) for _ in range(_DRAWS)]
        for tempo, sentences in zip(TEMPI, zip(*drawn, strict=True), strict=True):
            embeddings = embed_sentences(clap, list(sentences))
            means[instrument, tempo] = embeddings.mean(dim=0)
            codes[instrument, tempo] = quantizer.encode(embeddings)[:, 0].tolist()
    families: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for (instrument, _), own in codes.items():
        for code in own:
            families[code][instrument.family] += 1
    confused = []
    for (instrument, tempo), own in codes.items():
        others = sum(families[code].most_common(1)[0][0] != instrument.family for code in own)
        if instrument in not_played or others > _MOST_OF_ANOTHER * len(own):
            confused.append((instrument, tempo))
    nearest = {(instrument, tempo): _nearest(instrument, tempo, means, confused) for instrument, tempo in confused}
    return {one: other for one, other in nearest.items() if other is not None}


def separate_families(
    clap: ClapParts,
    substitutes: dict[InstrumentAtTempo, Instrument],
    captions: Sequence[str],
    steps: int,
    report: Callable[[str], None],
) -> None:
    """Trains the text tower in place, for `steps` steps of `BATCH` sentences; `report` receives lines of progress.

    A sentence about a confused instrument gets the embedding of the same sentence about its substitute. All other
    sentences keep the embeddings that they have, as do `captions` in which no confused instrument occurs.
    """
    teacher, rng = deepcopy(clap), random.Random(0)
    others = [(instrument, tempo) for instrument in _KNOWN for tempo in TEMPI if (instrument, tempo) not in substitutes]
    names = [name for instrument, _ in substitutes for name in instrument.names]
    unchanged = [text for text in captions if not any(name in text for name in names)]
    tower = [*clap.model.text_model.parameters(), *clap.model.text_projection.parameters()]
    optimizer = torch.optim.AdamW(tower, RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    clap.model.eval()
    for step in range(1, steps + 1):
        texts, targets = _batch(substitutes, others, unchanged, rng)
        with torch.no_grad():
            wanted = embed_sentences(teacher, targets)
        found = embed_sentences(clap, texts)
        loss = _distance(found, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % REPORT_EVERY == 0 or step == steps:
            report(f"step {step}: 1 - cosine {loss.item():.4f}")


def _batch(
    substitutes: dict[InstrumentAtTempo, Instrument],
    others: Sequence[InstrumentAtTempo],
    captions: Sequence[str],
    rng: random.Random,
) -> tuple[list[str], list[str]]:
    """Sentences, and those whose embeddings they shall have: a quarter about the confused instruments."""
    texts: list[str] = []
    targets: list[str] = []
    while len(texts) < BATCH // 4:
        instrument, tempo = rng.choice(list(substitutes))
        sentence = _sentence(instrument, tempo, rng)
        texts.append(sentence)
        targets.append(_about(substitutes[instrument, tempo], instrument, sentence))
    same = [_sentence(*rng.choice(others), rng) for _ in range(BATCH // 4)]
    same += [reword(rng.choice(captions), rng) for _ in range(BATCH - len(texts) - len(same))] if captions else []
    return texts + same, targets + same


def _sentence(instrument: Instrument, tempo: TempoClass, rng: random.Random) -> str:
    return reword(tempo_sentences(instrument, rng)[TEMPI.index(tempo)], rng)


def _about(substitute: Instrument, instrument: Instrument, sentence: str) -> str:
    """The sentence with the substitute's name for the longest of the instrument's names in it."""
    for name in sorted(instrument.names, key=len, reverse=True):
        if name in sentence:
            return sentence.replace(name, substitute.name)
    return f"{substitute.name} {sentence}"  # the words of a name were moved apart


def _nearest(
    instrument: Instrument,
    tempo: TempoClass,
    means: dict[InstrumentAtTempo, Tensor],
    confused: Sequence[InstrumentAtTempo],
) -> Instrument | None:
    family = [other for other in _KNOWN if other.family == instrument.family and (other, tempo) not in confused]
    own = means[instrument, tempo]
    similarity = {other: float(torch.cosine_similarity(own, means[other, tempo], dim=0)) for other in family}
    return max(similarity, key=similarity.__getitem__, default=None)


def _distance(found: Float[Tensor, "texts dim"], wanted: Float[Tensor, "texts dim"]) -> Float[Tensor, ""]:
    return (1 - torch.cosine_similarity(found, wanted, dim=1)).mean()
