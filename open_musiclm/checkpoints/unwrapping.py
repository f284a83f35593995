"""Unwraps weights of other trainers: nested in a larger dict, or with a prefix in every name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from open_musiclm.errors import UserError
from open_musiclm.terminal import print_stderr

Value = TypeVar("Value")
_SECTIONS = ("state_dict", "model_state_dict", "model")
_MOST_SECTIONS = 4  # within each other
_PREFIX = re.compile(r"^((?:module\.|_orig_mod\.)+)|(?<=\.)_orig_mod\.")


def unwrapped(content: Mapping[str, Value], path: Path) -> dict[str, Value]:
    """The weights in the content of a checkpoint: its section of that name where it holds more, without what data
    parallel training (`module.`) and torch.compile (`_orig_mod.`) put into names.

    Prints a line about what was removed. Raises UserError if two names become one.
    """
    wrappers = []
    for _ in range(_MOST_SECTIONS):
        section = next((name for name in _SECTIONS if isinstance(content.get(name), dict)), None)
        if section is None:
            break
        inner: Any = content[section]
        content = inner
        wrappers.append(f"the section {section!r}")
    prefixed = [found.group() for name in content if isinstance(name, str) and (found := _PREFIX.search(name))]
    result = {_PREFIX.sub("", name) if isinstance(name, str) else name: value for name, value in content.items()}
    if len(result) < len(content):
        raise UserError(f"{path}: holds the same weights with and without the prefix {prefixed[0]!r}")
    if prefixed:
        wrappers.append(f"the prefix {prefixed[0]!r}")
    if wrappers:
        print_stderr(f"{path}: took the weights out of {' and '.join(wrappers)}")
    return result
