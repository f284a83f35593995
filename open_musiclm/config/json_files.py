"""Reads JSON files of users and of foreign directories; no other module parses JSON files.

A file is regular, of bounded size and UTF-8, with or without a byte order mark. Duplicate keys, numbers that are not
finite, integers of too many digits, deep nesting and lone surrogates are refused. A config's key that is unknown,
missing, of a wrong type or in conflict with another is a `UserError` that names the file, the section, the key and what
was expected.
"""

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from open_musiclm.errors import UserError
from open_musiclm.text_files import read_lines, read_text

LARGEST_FILE = 32 << 20  # a tokenizer.json with a large vocabulary has 17 MB
LARGEST_CONFIG = 1 << 20
MOST_DIGITS = 64  # tokenizer_config.json has 10 ** 30 where it means "no limit"
MOST_LEVELS = 64
_LONGEST_SHOWN = 100
_MOST_PROBLEMS = 6
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _LONGEST_SHOWN
_SHORT.maxlevel = 3


class Section(BaseModel):
    """A section of a config file: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


SectionType = TypeVar("SectionType", bound=Section)


def read_json(path: Path, most_bytes: int = LARGEST_FILE) -> Any:
    """The content of a JSON file. Raises UserError."""
    return parse_json(read_text(path, most_bytes), str(path))


def read_json_object(path: Path, most_bytes: int = LARGEST_FILE) -> dict[str, Any]:
    """The content of a JSON file that holds an object. Raises UserError."""
    content = read_json(path, most_bytes)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {shown(content)}")
    return content


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a file with one JSON value a line, each after its place, "path:number". Raises UserError."""
    return ((place, parse_json(line, place)) for place, line in read_lines(path))


def parse_json(text: str, source: str) -> Any:
    """The content of JSON text; `source` names where it is from. Raises UserError."""
    try:
        content = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=_bounded_int,
            parse_float=_finite_float,
            parse_constant=_finite_float,
        )
        _check_levels_and_texts(content)
    except RecursionError as error:
        raise UserError(f"{source}: not valid JSON: nested too deeply, more than {MOST_LEVELS} levels") from error
    except ValueError as error:
        raise UserError(f"{source}: not valid JSON: {error}") from error
    return content


def load_section(path: Path, kind: type[SectionType]) -> SectionType:
    """Reads and validates a JSON file that is one section of `kind`. Raises UserError."""
    return section_from_content(read_json(path, LARGEST_CONFIG), str(path), kind)


def section_from_json(text: str, source: str, kind: type[SectionType]) -> SectionType:
    """Validates a section of `kind`; `source` names where the text is from. Raises UserError."""
    return section_from_content(parse_json(text, source), source, kind)


def section_from_content(content: object, source: str, kind: type[SectionType]) -> SectionType:
    """Validates a section of `kind`; `source` names where the content is from. Raises UserError."""
    try:
        return kind.model_validate(content, context={"source": source})
    except ValidationError as error:
        raise UserError(f"{source}: {problems_of(error, kind)}") from error


def problems_of(error: ValidationError, kind: type[BaseModel]) -> str:
    """The problems of a section's content, on one line."""
    problems = [_describe(problem, kind) for problem in error.errors(include_url=False)]
    rest = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    return "; ".join([*problems[:_MOST_PROBLEMS], *rest])


def shown(value: object) -> str:
    """A value for an error message, on one line and not too long."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python's own limit of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {shown(counts.most_common(1)[0][0])} occurs twice")
    return content


def _bounded_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits; at most {MOST_DIGITS} are read")
    return int(digits)


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown(text)} is not finite")
    return number


def _check_levels_and_texts(content: object) -> None:
    """Raises RecursionError if values are nested too deeply, ValueError if a text cannot be written again."""
    level, levels = [content], 0
    while level:
        if levels > MOST_LEVELS:
            raise RecursionError
        levels += 1
        level = [inner for value in level for inner in _inside(value)]


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half of a surrogate pair in the text {shown(value)}") from error
    return value if isinstance(value, list) else []


def _describe(problem: ErrorDetails, kind: type[BaseModel]) -> str:
    place = ": ".join(_printable(str(part)) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key; known here: {', '.join(sorted(_known_keys(problem['loc'], kind)))}"
    if problem["type"] == "missing":
        return f"{place}: missing; {problem['msg'].lower()}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{f'{place}: ' if place else ''}{message}, found {shown(problem['input'])}"


def _printable(key: str) -> str:
    return key if key.isprintable() and len(key) <= _LONGEST_SHOWN else shown(key)


def _known_keys(place: tuple, kind: type[BaseModel]) -> set[str]:
    """The keys of the section that `place` points into."""
    for part in place[:-1]:
        if part in kind.model_fields:  # else an index into a list of sections
            kind = next(_sections_in(kind.model_fields[part].annotation))
    return set(kind.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation names, also as optional or in lists."""
    options = get_args(annotation)
    if not options and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for option in options:
        yield from _sections_in(option)
