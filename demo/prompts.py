"""Prompts of the evaluation, in wordings that no caption of the demo corpus has, with their family and tempo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from demo.corpus.captions import with_article
from demo.corpus.excerpt import TEMPI, TempoClass
from demo.corpus.instruments import INSTRUMENTS

Item = TypeVar("Item")

_WORDINGS = (
    "I would like to hear {an_instrument}, {tempo}",
    "some {tempo} {instrument} music please",
    "{instrument} at {a_tempo} pace",
    "{an_instrument} plays something {tempo}",
    "play me {a_tempo} {instrument} theme",
    "the sound of {an_instrument} in {a_tempo} number",
)
_TEMPO_WORDS: dict[TempoClass, tuple[str, ...]] = {
    "slow": ("slow", "leisurely", "unhurried"),
    "medium": ("moderate", "mid-tempo", "medium-paced"),
    "fast": ("fast", "quick", "rapid"),
}
_ACCOMPANIES_ONLY = "bass"  # the corpus has it as an accompaniment only


@dataclass(frozen=True)
class ControlPrompt:
    """A prompt, and its instrument family and tempo class."""

    text: str
    family: str
    tempo: TempoClass


def control_prompts(count: int, seed: int) -> list[ControlPrompt]:
    """`count` prompts, families and tempi in turn, so that each is asked for about equally often."""
    rng = np.random.default_rng(seed)
    families = sorted({instrument.family for instrument in INSTRUMENTS} - {_ACCOMPANIES_ONLY})
    prompts = []
    for number in range(count):
        family, tempo = families[number % len(families)], TEMPI[number // len(families) % len(TEMPI)]
        instrument = _one([candidate for candidate in INSTRUMENTS if candidate.family == family], rng)
        name, pace = _one(instrument.names, rng), _one(_TEMPO_WORDS[tempo], rng)
        text = _one(_WORDINGS, rng).format(
            instrument=name, an_instrument=with_article(name), tempo=pace, a_tempo=with_article(pace)
        )
        prompts.append(ControlPrompt(text, family, tempo))
    return prompts


def prompts_for(names: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` prompts for an instrument with these names, tempi in turn."""
    rng = np.random.default_rng(seed)
    prompts = []
    for number in range(count):
        name, pace = _one(names, rng), _one(_TEMPO_WORDS[TEMPI[number % len(TEMPI)]], rng)
        wording = _WORDINGS[number // len(TEMPI) % len(_WORDINGS)]
        prompts.append(
            wording.format(instrument=name, an_instrument=with_article(name), tempo=pace, a_tempo=with_article(pace))
        )
    return prompts


def _one(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[rng.integers(len(items))]
