"""The tags for probes and arithmetic: categories or numbers, of sounds with one value."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from open_musiclm.analysis.labels import LabelledSound
from open_musiclm.errors import UserError, UserNotice

FEWEST_OF_A_VALUE = 5
MOST_VALUES = 100
_MOST_NUMERIC_CATEGORIES = 12
_JOIN = "+"
_IDENTIFIER = re.compile(r"(?:^|[ _])id$", re.IGNORECASE)  # the name of a tag whose numbers are names
_MOST_LISTED = 20


@dataclass(frozen=True)
class Tag:
    """The values of a tag, floats or texts, of the sounds that `members` numbers."""

    name: str
    members: Int[np.ndarray, "sounds"]
    values: Shaped[np.ndarray, "sounds"]

    @property
    def is_number(self) -> bool:
        """Whether the values are floats."""
        return bool(np.issubdtype(self.values.dtype, np.floating))


def usable_tags(sounds: Sequence[LabelledSound], names: Sequence[str] | None) -> tuple[list[Tag], dict[str, str]]:
    """The tags that a probe can be fitted to, and for the others the reason; "a+b" is a tag of both values.

    A sound counts where it has one value. Values of fewer than 5 sounds are left out. Numbers of more than 12 values
    are numbers, unless the tag's name ends with "id"; all others are categories. Without `names` every tag is looked
    at. Raises UserError for an unknown name.
    """
    known = _names(sounds)
    for name in names or ():
        unknown = [part for part in name.split(_JOIN) if part not in known]
        if unknown and name not in known:
            raise UserError(f"--tags {name}: no sound has {unknown[0]!r}; there are {_listed(known)}")
    usable, refused = [], {}
    for name in known if names is None else dict.fromkeys(names):
        tag = _tag(sounds, name, name.split(_JOIN) if name not in known else [name])
        if isinstance(tag, str):
            refused[name] = tag
        else:
            usable.append(tag)
    return usable, refused


def check_group_by(sounds: Sequence[LabelledSound], name: str | None) -> None:
    """Warns with a UserNotice of sounds without the tag that groups them; raises UserError if all are."""
    if name is None:
        return
    without = sum(name not in sound.tags for sound in sounds)
    if without == len(sounds):
        raise UserError(f"--group_by {name}: no sound has this tag; there are {_listed(_names(sounds))}")
    if without:
        lacking = f"--group_by {name}: {without} of {len(sounds)} sounds lack it; each of them is its own group"
        warnings.warn(UserNotice(lacking), stacklevel=2)


def _names(sounds: Sequence[LabelledSound]) -> list[str]:
    return list(dict.fromkeys(name for sound in sounds for name in sound.tags))


def _listed(names: Sequence[str]) -> str:
    rest = [f"and {len(names) - _MOST_LISTED} more"] if len(names) > _MOST_LISTED else []
    return ", ".join([*map(repr, names[:_MOST_LISTED]), *rest]) or "no tags"


def _tag(sounds: Sequence[LabelledSound], name: str, parts: Sequence[str]) -> Tag | str:
    """The tag, or the reason why it cannot be used."""
    single = {
        number: " ".join(sound.tags[part][0] for part in parts)
        for number, sound in enumerate(sounds)
        if all(len(sound.tags.get(part, ())) == 1 for part in parts)
    }
    counts = Counter(single.values())
    is_amount = len(counts) > _MOST_NUMERIC_CATEGORIES and not _IDENTIFIER.search(name)
    if is_amount and all(_is_number(value) for value in counts):
        members = np.array(list(single))
        return Tag(name, members, np.array([float(value) for value in single.values()]))
    kept = {number: value for number, value in single.items() if counts[value] >= FEWEST_OF_A_VALUE}
    values = len(set(kept.values()))
    if values < 2:
        return f"fewer than two of its values occur in {FEWEST_OF_A_VALUE} sounds"
    if values > MOST_VALUES:
        return f"{values} values, more than {MOST_VALUES}"
    return Tag(name, np.array(list(kept)), np.array(list(kept.values())))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
