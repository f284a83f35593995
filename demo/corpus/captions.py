"""Writes English captions of an arrangement; all of them are true.

Wordings name the tempo and all instruments, and half of those for one family name the family: a small CLAP learns
tempo and instruments faster if every sentence has them. Impressions name no instrument: otherwise CLAP separates clips
by their instruments, and learns tempi slowly.
"""

from collections.abc import Callable, Sequence

import numpy as np

from demo.corpus.arrangement import Arrangement

WORDINGS_PER_CLIP = 10
IMPRESSIONS_PER_CLIP = 8
_SHARE_OF_TERSE = 0.5
TEMPO_WORDS = {
    "slow": ("slow", "unhurried", "slow-paced", "leisurely"),
    "medium": ("moderate", "mid-tempo", "medium-paced", "walking-pace"),
    "fast": ("fast", "quick", "up-tempo", "rapid"),
}
CHARACTER_WORDS = {
    ("slow", "major"): ("calm", "peaceful", "gentle", "serene"),
    ("slow", "minor"): ("sad", "mournful", "melancholic", "sorrowful"),
    ("medium", "major"): ("bright", "cheerful", "warm", "happy"),
    ("medium", "minor"): ("dark", "wistful", "melancholic", "serious"),
    ("fast", "major"): ("lively", "joyful", "cheerful", "happy"),
    ("fast", "minor"): ("restless", "stormy", "dramatic", "tense"),
}
_NOUN = {
    "slow": ("melody", "tune", "piece", "song", "air"),
    "medium": ("melody", "tune", "piece", "song"),
    "fast": ("melody", "tune", "piece", "dance"),
}
_MODE = ("in a {} key", "in {}", "in a {} mode")
_DENSITY = {
    "sparse": ("with few notes", "sparse", "sparse and spacious"),
    "moderate": (),
    "dense": ("with many notes", "dense and busy", "full of notes"),
}
_FAMILY = {
    "keyboards": "keyboard music",
    "mallets": "mallet percussion",
    "organs": "organ music",
    "plucked strings": "plucked string music",
    "bass": "bass music",
    "bowed strings": "bowed string music",
    "voices": "choral music",
    "brass": "brass music",
    "woodwinds": "woodwind music",
    "synthesizers": "electronic music",
}
REGISTER_WORDS = {
    "low": ("in a low register", "low and deep"),
    "middle": (),
    "high": ("in a high register", "high-pitched"),
}
_SOLO = ("solo {}", "{} alone", "{} solo", "a single {}")


def captions_for(arrangement: Arrangement, rng: np.random.Generator) -> list[str]:
    """Different wordings that name the tempo and all instruments, half of them terse; after them different
    impressions, which name the tempo and no instrument."""
    return [
        *_different(WORDINGS_PER_CLIP, lambda: _caption(arrangement, rng)),
        *_different(IMPRESSIONS_PER_CLIP, lambda: _impression(arrangement, rng)),
    ]


def _different(count: int, draw: Callable[[], str]) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw()] = None
    return list(found)


def _impression(arrangement: Arrangement, rng: np.random.Generator) -> str:
    """How the music is, whatever plays it."""
    adjectives = [_one(TEMPO_WORDS[arrangement.tempo], rng)]
    adjectives += [_one(CHARACTER_WORDS[arrangement.tempo, arrangement.mode], rng)] * _happens(0.5, rng)
    rng.shuffle(adjectives)
    noun = _one(("music", *_NOUN[arrangement.tempo]), rng)
    text = " ".join([*adjectives, noun])
    sentence = _one((text, f"{', '.join(adjectives)}", f"something {' and '.join(adjectives)}"), rng)
    mode = [_one(_MODE, rng).format(arrangement.mode)] * _happens(0.25, rng)
    return ", ".join([sentence, *mode])


def _caption(arrangement: Arrangement, rng: np.random.Generator) -> str:
    if _happens(_SHARE_OF_TERSE, rng):
        return _terse(arrangement, rng)
    character = CHARACTER_WORDS[arrangement.tempo, arrangement.mode]
    adjectives = [_one(TEMPO_WORDS[arrangement.tempo], rng)]
    adjectives += [_one(character, rng)] * _happens(0.65, rng)
    noun = _one(_NOUN[arrangement.tempo], rng)
    players = [_one(voice.instrument.names, rng) for voice in arrangement.voices]
    template = _one(_templates(arrangement), rng)
    sentence = template.format(
        tune=" ".join([*adjectives, noun]),
        a_tune=with_article(" ".join([*adjectives, noun])),
        music=" ".join([*adjectives, "music"]),
        adjectives=", ".join(adjectives),
        noun=noun,
        players=_listed(players),
        lead=players[0],
        others=_listed(players[1:]) if len(players) > 1 else "",
        solo=_one(_SOLO, rng).format(players[0]),
    )
    return ", ".join([sentence, *_details(arrangement, rng)])


def _terse(arrangement: Arrangement, rng: np.random.Generator) -> str:
    """Short captions of a few words."""
    adjectives = [_one(TEMPO_WORDS[arrangement.tempo], rng)]
    adjectives += [_one(CHARACTER_WORDS[arrangement.tempo, arrangement.mode], rng)] * _happens(0.4, rng)
    rng.shuffle(adjectives)
    players = _listed([_one(voice.instrument.names, rng) for voice in arrangement.voices])
    noun = _one(_NOUN[arrangement.tempo], rng)
    ending = f"{players} {noun}" if len(arrangement.voices) == 1 and _happens(0.5, rng) else players
    return " ".join([*adjectives, ending])


def _templates(arrangement: Arrangement) -> tuple[str, ...]:
    always = (
        "{a_tune} for {players}",
        "{a_tune} played by {players}",
        "{a_tune} on {players}",
        "{music} with {players}",
        "{players} playing {a_tune}",
        "{players}, {adjectives}",
        "this is {a_tune} played on {players}",
    )
    if len(arrangement.voices) == 1:
        return (*always, "{adjectives} {lead} {noun}", "{solo} playing {a_tune}", "{adjectives} music for {solo}")
    if not all(voice.leads for voice in arrangement.voices):
        return (*always, "{a_tune} on {lead} accompanied by {others}", "{lead} with {others} playing {a_tune}")
    return (*always, "an ensemble of {players} playing {a_tune}", "{a_tune} shared by {players}")


def _details(arrangement: Arrangement, rng: np.random.Generator) -> list[str]:
    mode = _one(_MODE, rng).format(arrangement.mode)
    details = [mode] * _happens(0.4, rng)
    families = {voice.instrument.family for voice in arrangement.voices}
    if len(families) == 1:
        details += [_FAMILY[min(families)]] * _happens(0.5, rng)
    for words in (_DENSITY[arrangement.density], REGISTER_WORDS[arrangement.register]):
        if words and _happens(0.3, rng):
            details.append(_one(words, rng))
    details += [f"at {arrangement.bpm} beats per minute"] * _happens(0.1, rng)
    rng.shuffle(details)
    return details


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def with_article(noun: str) -> str:
    """The noun after a or an."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _one(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return bool(rng.random() < probability)
