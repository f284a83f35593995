"""Measures mixtures and style sounds by the instrument families in the generated music."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from demo.classifier_training import LabelledClip, Wave
from demo.corpus.instruments import INSTRUMENTS, Instrument
from demo.training_domain import TEMPI
from open_musiclm import Mixture, MusicLM, Prompt
from open_musiclm.generation.prompts.story import AnyPrompt
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.generation.search import best_of_n

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second instrument of a pair
Classify = Callable[[Sequence[Wave]], list[str]]
Generate = Callable[[Sequence[AnyPrompt]], list[Wave]]
Measures = dict[str, Any]
# Basses only accompany.
_LEADING_INSTRUMENTS = [instrument for instrument in INSTRUMENTS if instrument.family != "bass"]


def best_waves(model: MusicLM) -> Generate:
    """Generation as users get it: of each prompt the best of the bundle's number of samples, by CLAP."""
    return lambda prompts: [samples[0].wave for samples in best_of_n(model, prompts, ClapScorer(model))]


def clap_classifier(model: MusicLM) -> Classify:
    """The family of the instrument whose captions CLAP finds most similar to a wave."""
    captions = [f"{tempo} {instrument.name}" for instrument in _LEADING_INSTRUMENTS for tempo in TEMPI]
    families = [instrument.family for instrument in _LEADING_INSTRUMENTS for _ in TEMPI]

    def classify(waves: Sequence[Wave]) -> list[str]:
        nearest = [int((model.embed_waves(wave[None])[0] @ model.embed_text(captions).T).argmax()) for wave in waves]
        return [families[place] for place in nearest]

    return classify


def instrument_pairs(count: int, seed: int = 0) -> list[tuple[Instrument, Instrument]]:
    """So many different pairs of instruments of different families."""
    pairs = [pair for pair in combinations(_LEADING_INSTRUMENTS, 2) if pair[0].family != pair[1].family]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [pairs[place] for place in chosen]


def measure_mixtures(generate: Generate, classify: Classify, count: int) -> Measures:
    """Of `count` pairs, at each weight of the second: the share whose family is one of the two, and the second's."""
    pairs = instrument_pairs(count)
    found: Measures = {"pairs": len(pairs), "one of the two": {}, "the second": {}}
    for weight in WEIGHTS:
        prompts = [
            Mixture([Prompt(_text(first), weight=1 - weight), Prompt(_text(second), weight=weight)])
            for first, second in pairs
        ]
        families = classify(generate(prompts))
        either = [
            family in (first.family, second.family) for family, (first, second) in zip(families, pairs, strict=True)
        ]
        latter = [family == second.family for family, (_, second) in zip(families, pairs, strict=True)]
        found["one of the two"][f"{weight:g}"] = _share(either)
        found["the second"][f"{weight:g}"] = _share(latter)
    shares = [share["share"] for share in found["the second"].values()]
    found["the second never falls as its weight rises"] = all(later >= share for share, later in pairwise(shares))
    return found


def measure_styles(
    generate: Generate, classify: Classify, clips: Sequence[LabelledClip], count: int, seconds: float
) -> Measures:
    """Of `count` clips as style sounds, families in turn: the share whose family is found in what follows them.

    Of the clips themselves the first `seconds` are classified.
    """
    chosen = _families_in_turn(clips, count)
    sounds: list[AnyPrompt] = [Prompt(audio=clip.path) for clip in chosen]
    wanted = [clip.family for clip in chosen]

    def right(families: Sequence[str]) -> dict[str, float]:
        return _share([family == own for family, own in zip(families, wanted, strict=True)])

    return {
        "clips": len(chosen),
        "followed in family": right(classify(generate(sounds))),
        "the clips themselves": right(classify([clip.wave(seconds) for clip in chosen])),
    }


def _text(instrument: Instrument) -> str:
    return f"{TEMPI[1]} {instrument.name}"


def _families_in_turn(clips: Sequence[LabelledClip], count: int) -> list[LabelledClip]:
    """The first clip of every family, then the second, and so on."""
    families = sorted({clip.family for clip in clips})
    own = {family: [clip for clip in clips if clip.family == family] for family in families}
    longest = max(map(len, own.values()))
    return [own[name][place] for place in range(longest) for name in families if place < len(own[name])][:count]


def _share(right: Sequence[bool]) -> dict[str, float]:
    """A share, and one standard error of it."""
    share = sum(right) / len(right)
    return {"share": share, "standard_error": math.sqrt(share * (1 - share) / len(right))}
