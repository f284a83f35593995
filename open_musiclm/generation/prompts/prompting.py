"""Prompts: a text, a sound whose style is wanted, or a weighted mixture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from open_musiclm.audio import Sound


@dataclass(frozen=True)
class StyleSound(Sound):
    """A sound whose style is wanted. Its name has a hash of its samples; `path` is that of its file, if any."""

    name: str
    path: Path | None


@dataclass(frozen=True)
class Prompt:
    """A text, a sound whose style is wanted, or both: then the mean of their CLAP embeddings.

    `audio` is a Sound, or the path of a sound file. `weight` counts within a `Mixture` only. `generate` and `stream`
    check the fields, and raise UserError.
    """

    text: str | None = None
    audio: Sound | Path | str | None = None
    weight: float = 1.0

    def __str__(self) -> str:
        """Its name, used for random numbers, file names and JSONs instead of a text."""
        sound = self.audio.name if isinstance(self.audio, StyleSound) else self.audio
        return " with ".join(str(half) for half in (self.text, sound) if half is not None)


@dataclass(frozen=True)
class Mixture:
    """One prompt of several: the normalised sum of weight * CLAP embedding, where embeddings have length 1.

    Parts of weight 0 do not count, equal ones count together, and their order does not matter. `weight` counts within
    another mixture only.
    """

    parts: "Sequence[str | Prompt | Mixture]"
    weight: float = 1.0

    def __str__(self) -> str:
        """Its name, as `Prompt`'s: every part and its weight."""
        return " + ".join(f"{_bracketed(part)}:{number_text(getattr(part, 'weight', 1.0))}" for part in self.parts)


SteadyPrompt: TypeAlias = str | Prompt | Mixture  # the same all the time


def _bracketed(part: SteadyPrompt) -> str:
    return f"({part})" if isinstance(part, Mixture) else str(part)


def number_text(value: float) -> str:
    """A number that reads back as the same."""
    return repr(float(value)).removesuffix(".0")
