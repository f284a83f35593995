"""The General MIDI instruments of the demo corpus, and their usual names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """A General MIDI program (from 0), the keys it sounds well at, and its names in captions, the usual first."""

    family: str
    program: int
    lowest: int
    highest: int
    names: tuple[str, ...]
    plays_chords: bool = False
    plays_bass: bool = False

    @property
    def name(self) -> str:
        return self.names[0]


INSTRUMENTS = (
    Instrument("keyboards", 0, 33, 96, ("piano", "grand piano", "acoustic piano"), plays_chords=True),
    Instrument("keyboards", 4, 36, 88, ("electric piano", "Rhodes piano"), plays_chords=True),
    Instrument("keyboards", 6, 36, 84, ("harpsichord", "cembalo"), plays_chords=True),
    Instrument("mallets", 9, 72, 103, ("glockenspiel", "orchestra bells")),
    Instrument("mallets", 10, 60, 96, ("music box", "musical box"), plays_chords=True),
    Instrument("mallets", 11, 53, 89, ("vibraphone", "vibes")),
    Instrument("mallets", 12, 48, 91, ("marimba",)),
    Instrument("mallets", 13, 65, 101, ("xylophone",)),
    Instrument("organs", 19, 36, 91, ("church organ", "pipe organ", "organ"), plays_chords=True),
    Instrument("organs", 21, 53, 89, ("accordion", "squeezebox"), plays_chords=True),
    Instrument("organs", 22, 60, 89, ("harmonica", "mouth organ")),
    Instrument(
        "plucked strings", 24, 40, 79, ("acoustic guitar", "nylon-string guitar", "classical guitar"), plays_chords=True
    ),
    Instrument("plucked strings", 27, 40, 81, ("electric guitar", "clean electric guitar"), plays_chords=True),
    Instrument("plucked strings", 30, 40, 76, ("distorted guitar", "distorted electric guitar", "rock guitar")),
    Instrument("plucked strings", 105, 48, 81, ("banjo",), plays_chords=True),
    Instrument("bass", 32, 28, 55, ("double bass", "upright bass", "acoustic bass"), plays_bass=True),
    Instrument("bass", 33, 28, 55, ("electric bass", "bass guitar"), plays_bass=True),
    Instrument("bowed strings", 40, 55, 96, ("violin", "fiddle")),
    Instrument("bowed strings", 41, 48, 84, ("viola",)),
    Instrument("bowed strings", 42, 36, 72, ("cello", "violoncello"), plays_bass=True),
    Instrument("plucked strings", 45, 40, 84, ("pizzicato strings", "plucked strings")),
    Instrument("plucked strings", 46, 36, 96, ("harp", "concert harp"), plays_chords=True),
    Instrument(
        "bowed strings", 48, 36, 91, ("string ensemble", "string orchestra", "string section"), plays_chords=True
    ),
    Instrument("voices", 52, 48, 79, ("choir", "singing choir", "choir of voices"), plays_chords=True),
    Instrument("brass", 56, 55, 82, ("trumpet",)),
    Instrument("brass", 57, 40, 70, ("trombone",), plays_bass=True),
    Instrument("brass", 58, 28, 58, ("tuba",), plays_bass=True),
    Instrument("brass", 60, 41, 76, ("French horn", "horn")),
    Instrument("brass", 61, 40, 82, ("brass section", "brass ensemble"), plays_chords=True),
    Instrument("woodwinds", 65, 50, 81, ("saxophone", "alto saxophone", "sax")),
    Instrument("woodwinds", 68, 58, 88, ("oboe",)),
    Instrument("woodwinds", 70, 34, 67, ("bassoon",), plays_bass=True),
    Instrument("woodwinds", 71, 50, 86, ("clarinet",)),
    Instrument("woodwinds", 73, 60, 96, ("flute",)),
    Instrument("woodwinds", 74, 60, 93, ("recorder", "wooden recorder")),
    Instrument("woodwinds", 75, 60, 91, ("pan flute", "panpipes")),
    Instrument("synthesizers", 80, 48, 88, ("square-wave synthesizer", "chiptune synthesizer", "square synth")),
    Instrument("synthesizers", 81, 48, 88, ("sawtooth synthesizer", "synth lead", "saw synth")),
    Instrument("synthesizers", 89, 40, 84, ("synth pad", "warm synthesizer pad"), plays_chords=True),
    Instrument("plucked strings", 104, 48, 79, ("sitar",)),
    Instrument("plucked strings", 107, 48, 86, ("koto",)),
    Instrument("woodwinds", 109, 58, 84, ("bagpipes", "bagpipe")),
)
