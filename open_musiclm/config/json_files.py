"""Reading JSON files into validated types, with errors for the person at the terminal.

A key that is unknown, missing, of a wrong type or at odds with another is a `UserError` that names the file, the
section, the key and what was expected.
"""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from open_musiclm.errors import UserError


class Section(BaseModel):
    """A section of a config file: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


SectionType = TypeVar("SectionType", bound=Section)


def load_section(path: Path, kind: type[SectionType]) -> SectionType:
    """Reads and validates a JSON file that is one section of `kind`. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: cannot read this config: {reason}") from error
    return section_from_json(text, str(path), kind)


def section_from_json(text: str, source: str, kind: type[SectionType]) -> SectionType:
    """Validates a section of `kind`; `source` names where the text is from. Raises UserError."""
    return section_from_content(_parse(text, source), source, kind)


def section_from_content(content: object, source: str, kind: type[SectionType]) -> SectionType:
    """Validates a section of `kind`; `source` names where the content is from. Raises UserError."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {problems_of(error, kind)}") from error


def problems_of(error: ValidationError, kind: type[BaseModel]) -> str:
    """What is wrong with the content of a section, on one line."""
    return "; ".join(_describe(problem, kind) for problem in error.errors())


def _parse(text: str, source: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{source}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{source}: not valid JSON: nested too deeply") from error


def _describe(problem: ErrorDetails, kind: type[BaseModel]) -> str:
    place = ": ".join(str(part) for part in problem["loc"])
    found = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key; known here: {', '.join(sorted(_known_keys(problem['loc'], kind)))}"
    if problem["type"] == "missing":
        return f"{place}: missing; {problem['msg'].lower()}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, found {found!r}"


def _known_keys(place: tuple, kind: type[BaseModel]) -> set[str]:
    """The keys of the section that `place` points into."""
    for part in place[:-1]:
        annotation = kind.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        kind = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return set(kind.model_fields)
