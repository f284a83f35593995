"""What people may call a sound of the demo corpus: its instrument and its pace in free wordings.

None of these phrases is in the prompts of `evaluation/prompts.py`.
"""

import random

from demo.corpus.captions import CHARACTER_WORDS, TEMPO_WORDS, with_article
from demo.corpus.excerpt import TEMPI, TempoClass
from demo.corpus.instruments import Instrument

NAMINGS = (
    "{pace} {instrument}", "{pace} {instrument} music", "{pace} {instrument} melody", "{a_pace} {instrument} tune",
    "music with {instrument}, {pace}", "solo {instrument} playing {a_pace} piece", "{instrument}, {pace}",
    "{a_pace} piece played by {instrument}", "{instrument} playing {a_pace} song", "{a_pace} dance on {an_instrument}",
    "this is {a_pace} tune on {instrument}", "{instrument} alone, {pace}", "{an_instrument}, {pace}",
    "{pace} tune for {instrument}",
)  # fmt: skip
PHRASES = (
    "can you make {}", "give me {}", "generate {}", "we need {} for a film", "{}, nothing else", "music: {}",
    "a recording of {}", "{} for the evening", "my favourite is {}", "let us have {}", "{} would be nice",
    "do you know {}?", "in the background {} is heard", "imagine {}", "here comes {}", "Make {}!", "compose {} now",
)  # fmt: skip
LITTLE_WORDS = (
    "the a an some any this that is was with and of for to in on by it its very really quite rather just such one kind "
    "style track part thing being piece music there which has have"
)

_SHARE_OF_MOODS = 0.4


def _moods() -> dict[TempoClass, tuple[str, ...]]:
    felt = {pace: {w for (at, _), words in CHARACTER_WORDS.items() if at == pace for w in words} for pace in TEMPI}
    return {pace: tuple(sorted(felt[pace].difference(*(felt[o] for o in TEMPI if o != pace)))) for pace in TEMPI}


# What is said of music of one pace only.
MOODS = _moods()


def namings(instrument: Instrument, chance: random.Random) -> list[str]:
    """A sentence for slow, medium and fast, which differ in nothing else; some say it by how such music feels."""
    name, sentence = chance.choice(instrument.names), chance.choice(NAMINGS)
    said = MOODS if chance.random() < _SHARE_OF_MOODS else TEMPO_WORDS
    words = [chance.choice(said[pace]) for pace in TEMPI]
    return [
        sentence.format(instrument=name, an_instrument=with_article(name), pace=word, a_pace=with_article(word))
        for word in words
    ]


def reworded(caption: str, chance: random.Random) -> str:
    """A caption as it is, in a phrase, with little words in between, or beginning somewhere in its middle."""
    kind = chance.random()
    if kind < 0.3:
        return caption
    if kind < 0.6:
        return chance.choice(PHRASES).format(caption)
    words = caption.replace(",", " ").split()
    if kind >= 0.8:
        first = chance.randrange(len(words))
        words = words[first:] + words[:first]
    for _ in range(chance.randint(0, 5)):
        words.insert(chance.randrange(len(words) + 1), chance.choice(LITTLE_WORDS.split()))
    text = " ".join(words)
    return chance.choice(PHRASES).format(text) if kind >= 0.92 else text
