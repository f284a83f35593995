"""Free wordings for sounds of the demo corpus: an instrument and its tempo.

None of these phrases is in the prompts of `demo/prompts.py`.
"""

import random

from demo.corpus.captions import CHARACTER_WORDS, TEMPO_WORDS, with_article
from demo.corpus.excerpt import TEMPI, TempoClass
from demo.corpus.instruments import Instrument

SENTENCES = (
    "{tempo} {instrument}", "{tempo} {instrument} music", "{tempo} {instrument} melody", "{a_tempo} {instrument} tune",
    "music with {instrument}, {tempo}", "solo {instrument} playing {a_tempo} piece", "{instrument}, {tempo}",
    "{a_tempo} piece played by {instrument}", "{instrument} playing {a_tempo} song",
    "{a_tempo} dance on {an_instrument}", "this is {a_tempo} tune on {instrument}", "{instrument} alone, {tempo}",
    "{an_instrument}, {tempo}", "{tempo} tune for {instrument}",
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
    felt = {tempo: {w for (at, _), words in CHARACTER_WORDS.items() if at == tempo for w in words} for tempo in TEMPI}
    return {tempo: tuple(sorted(felt[tempo].difference(*(felt[o] for o in TEMPI if o != tempo)))) for tempo in TEMPI}


# The character words of one tempo only.
MOODS = _moods()


def tempo_sentences(instrument: Instrument, rng: random.Random) -> list[str]:
    """A sentence about the instrument for slow, medium and fast, alike but for the word for the tempo, which may be a
    mood of music at that tempo."""
    name, sentence = rng.choice(instrument.names), rng.choice(SENTENCES)
    vocabulary = MOODS if rng.random() < _SHARE_OF_MOODS else TEMPO_WORDS
    words = [rng.choice(vocabulary[tempo]) for tempo in TEMPI]
    return [
        sentence.format(instrument=name, an_instrument=with_article(name), tempo=word, a_tempo=with_article(word))
        for word in words
    ]


def reword(caption: str, rng: random.Random) -> str:
    """The caption unchanged, in a phrase, with little words inserted, or rotated to start in its middle."""
    kind = rng.random()
    if kind < 0.3:
        return caption
    if kind < 0.6:
        return rng.choice(PHRASES).format(caption)
    words = caption.replace(",", " ").split()
    if kind >= 0.8:
        first = rng.randrange(len(words))
        words = words[first:] + words[:first]
    for _ in range(rng.randint(0, 5)):
        words.insert(rng.randrange(len(words) + 1), rng.choice(LITTLE_WORDS.split()))
    text = " ".join(words)
    return rng.choice(PHRASES).format(text) if kind >= 0.92 else text
