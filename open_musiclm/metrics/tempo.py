"""Tempo: what a text says, and whether an estimate agrees (Gouyon et al. 2006)."""

import re
from dataclasses import dataclass

TOLERANCE = 0.04
_FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)
_NUMBER = r"\d+(?:\.\d+)?"
_RANGE = rf"(\s*(?:[-~\u2013\u2014]|to|and|or)\s*{_NUMBER})?"
_TEMPI = (
    re.compile(rf"(?<![\d.,])({_NUMBER}){_RANGE}\s*-?\s*(?:bpm|beats? (?:per|a) minute)\b", re.IGNORECASE),
    re.compile(rf"\bbpm(?:\s*[:=]|\s+(?:of|is))\s*({_NUMBER})(?!\d){_RANGE}", re.IGNORECASE),
)
_LOWEST, _HIGHEST = 20.0, 400.0


@dataclass(frozen=True)
class TempoClass:
    """Words for a tempo, and the beats per minute that they stand for: [low, high)."""

    words: tuple[str, ...]
    low: float
    high: float


# Between Italian tempo marks: adagio ends and allegro begins near these.
SLOW = TempoClass(("slow", "slow-paced", "unhurried", "leisurely", "adagio", "largo", "lento"), 0, 80)
MEDIUM = TempoClass(("moderate", "mid-tempo", "medium-paced", "medium", "andante", "moderato"), 80, 120)
FAST = TempoClass(
    ("fast", "fast-paced", "quick", "up-tempo", "uptempo", "rapid", "allegro", "presto", "vivace"), 120, 1000
)


def named_bpm(text: str) -> float | None:
    """The beats per minute that a text names, if it names one tempo and no range."""
    found = {(float(first), bool(last)) for form in _TEMPI for first, last in form.findall(text)}
    if len(found) != 1:
        return None
    ((bpm, is_range),) = found
    return bpm if not is_range and _LOWEST <= bpm <= _HIGHEST else None


def named_class(text: str) -> TempoClass | None:
    """The class of tempo that the words of a text name, if they name one."""
    words = set(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()))
    found = [kind for kind in (SLOW, MEDIUM, FAST) if words.intersection(kind.words)]
    return found[0] if len(found) == 1 else None


def same_tempo(estimated: float, named: float) -> bool:
    """Accuracy 1: within 4 % of the tempo that is named."""
    return abs(estimated - named) <= TOLERANCE * named


def same_tempo_but_for_octave(estimated: float, named: float) -> bool:
    """Accuracy 2: as accuracy 1, or of twice, three times, half or a third of it."""
    return any(same_tempo(estimated, factor * named) for factor in _FACTORS)


def fits(estimated: float, kind: TempoClass) -> bool:
    """Whether an estimate is in a class."""
    return kind.low <= estimated < kind.high
