"""Trains CLAP's text tower so that instruments of different families do not share codes of the CLAP quantizer.

A prompt reaches the stages only as such codes. An instrument whose sentences mostly get codes of another family is
played by that one. Its sentences are brought to those of the nearest instrument of its own family; all others stay
where they are, so stages that were trained with the tower go on to understand it.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from demo.backbones.matching_losses import embed_sentences
from demo.corpus.instruments import INSTRUMENTS, Instrument
from demo.corpus.wordings import reword, tempo_sentences
from open_musiclm.tokenizers.clap_directory import ClapParts
from open_musiclm.tokenizers.rvq import ClapQuantizer

RATE, BATCH, REPORT_EVERY = 2e-4, 128, 50
_DRAWS = 12  # of sentences for each instrument, at three tempi
_MOST_OF_ANOTHER = 0.5  # share of an instrument's sentences
_KNOWN = tuple(instrument for instrument in INSTRUMENTS if instrument.family != "bass")


@torch.no_grad()
def confused_instruments(clap: ClapParts, quantizer: ClapQuantizer) -> dict[Instrument, Instrument]:
    """Maps each confused instrument to the nearest instrument of its family that is not confused.

    A code belongs to the family with most sentences that get it. An instrument is confused if most of its sentences get
    codes of other families. It is left out if all instruments of its family are confused.
    """
    rng, codes, means = random.Random(0), {}, {}
    for instrument in _KNOWN:
        sentences = [sentence for _ in range(_DRAWS) for sentence in tempo_sentences(instrument, rng)]
        embeddings = embed_sentences(clap, sentences)
        means[instrument] = embeddings.mean(dim=0)
        codes[instrument] = quantizer.encode(embeddings)[:, 0].tolist()
    families: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for instrument, own in codes.items():
        for code in own:
            families[code][instrument.family] += 1
    confused = []
    for instrument, own in codes.items():
        others = sum(families[code].most_common(1)[0][0] != instrument.family for code in own)
        if others > _MOST_OF_ANOTHER * len(own):
            confused.append(instrument)
    nearest = {instrument: _nearest(instrument, means, confused) for instrument in confused}
    return {instrument: other for instrument, other in nearest.items() if other is not None}


def separate_families(
    clap: ClapParts,
    substitutes: dict[Instrument, Instrument],
    captions: Sequence[str],
    steps: int,
    report: Callable[[str], None],
) -> None:
    """Trains the text tower in place, for `steps` steps of `BATCH` sentences; `report` receives lines of progress.

    A sentence about a confused instrument gets the embedding of the same sentence about its substitute. All other
    sentences, and `captions`, keep the embeddings that they have.
    """
    teacher, rng = deepcopy(clap), random.Random(0)
    others = [instrument for instrument in _KNOWN if instrument not in substitutes]
    names = [name for instrument in substitutes for name in instrument.names]
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
    substitutes: dict[Instrument, Instrument],
    others: Sequence[Instrument],
    captions: Sequence[str],
    rng: random.Random,
) -> tuple[list[str], list[str]]:
    """Sentences, and those whose embeddings they shall have: a quarter about the confused instruments."""
    texts: list[str] = []
    targets: list[str] = []
    while len(texts) < BATCH // 4:
        instrument = rng.choice(list(substitutes))
        sentence = reword(rng.choice(tempo_sentences(instrument, rng)), rng)
        texts.append(sentence)
        targets.append(_about(substitutes[instrument], instrument, sentence))
    same = [reword(rng.choice(tempo_sentences(rng.choice(others), rng)), rng) for _ in range(BATCH // 4)]
    same += [reword(rng.choice(captions), rng) for _ in range(BATCH - len(texts) - len(same))] if captions else []
    return texts + same, targets + same


def _about(substitute: Instrument, instrument: Instrument, sentence: str) -> str:
    """The sentence with the substitute's name for the longest of the instrument's names in it."""
    for name in sorted(instrument.names, key=len, reverse=True):
        if name in sentence:
            return sentence.replace(name, substitute.name)
    return f"{substitute.name} {sentence}"  # the words of a name were moved apart


def _nearest(
    instrument: Instrument, means: dict[Instrument, Tensor], confused: Sequence[Instrument]
) -> Instrument | None:
    family = [other for other in means if other.family == instrument.family and other not in confused]
    similarity = {other: float(torch.cosine_similarity(means[instrument], means[other], dim=0)) for other in family}
    return max(similarity, key=similarity.__getitem__, default=None)


def _distance(found: Float[Tensor, "texts dim"], wanted: Float[Tensor, "texts dim"]) -> Float[Tensor, ""]:
    return (1 - torch.cosine_similarity(found, wanted, dim=1)).mean()
