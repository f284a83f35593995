"""Files with something wrong in them: seeded mutations of right ones, and what stands in a file's place."""

import copy
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_PLACEHOLDER = "the value that is replaced"
# Values as JSON text: none of them is right everywhere, some are nowhere.
WRONG_VALUES = (
    "null",
    "true",
    "-1",
    "0",
    "0.5",
    "1e-45",
    "1e308",
    "1e999",
    "NaN",
    "-Infinity",
    str(10**30),
    "9" * 5000,
    '""',
    '"../.."',
    '"/dev/zero"',
    r'"\u0000"',
    r'"\ud800"',
    r'"line\nline"',
    "[]",
    "{}",
    "[1, 2]",
    '[["a"]]',
    '{"a": {"b": 1}}',
    "[" * 2000 + "]" * 2000,
    json.dumps("x" * 100_000),
)


def json_with(content: Any, path: tuple[str, ...], value: str) -> bytes:
    """JSON text whose value at `path` is the JSON text `value`."""
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = _PLACEHOLDER
    return json.dumps(changed).replace(json.dumps(_PLACEHOLDER), value).encode()


def keys_of(content: dict, depth: int = 2) -> list[tuple[str, ...]]:
    """The paths of all keys, sections first."""
    found: list[tuple[str, ...]] = []
    for key, value in content.items():
        found.append((key,))
        if isinstance(value, dict) and depth > 1:
            found += [(key, *path) for path in keys_of(value, depth - 1)]
    return found


def wrong_json(content: dict, count: int, seed: str) -> Iterator[bytes]:
    """`count` mutations of a JSON object: wrong values, missing, foreign and double keys, damaged text."""
    rng = random.Random(seed)
    text, keys = json.dumps(content), keys_of(content)
    for number in range(count):
        path, kind = rng.choice(keys), number % 8
        if kind < 5:
            yield json_with(content, path, rng.choice(WRONG_VALUES))
        elif kind == 5:
            yield json_with(content, (*path[:-1], rng.choice(("", "x" * 300, "é\n", path[-1].upper()))), "1")
        elif kind == 6:
            changed = copy.deepcopy(content)
            place = changed
            for key in path[:-1]:
                place = place[key]
            del place[path[-1]]
            yield json.dumps(changed).encode()
        else:
            yield rng.choice(_DAMAGES)(text.encode(), rng)


def mutated(content: bytes, rng: random.Random, header: int = 200) -> bytes:
    """The bytes with some changed, most of them in the header, or cut, or with some put in."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(min(len(damaged), header) if rng.random() < 0.7 else len(damaged))
        damaged[place] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
    if rng.random() < 0.2:
        del damaged[rng.randrange(len(damaged)) :]
    elif rng.random() < 0.1:
        place = rng.randrange(len(damaged))
        damaged[place:place] = rng.randbytes(rng.randint(1, 100))
    return bytes(damaged)


_DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda content, rng: content[: rng.randrange(len(content))],
    lambda content, rng: mutated(content, rng, len(content)),
    lambda content, rng: content + b"}",
    lambda content, rng: content[:-1] + b', "global_cfg": {}, "global_cfg": {}}',
    lambda content, rng: content.decode().encode("utf-16"),
    lambda content, rng: b"[" * 100_000,
    lambda content, rng: b"",
    lambda content, rng: bytes(1000),
    lambda content, rng: b"null",
    lambda content, rng: b"[" + content + b"]",
)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def _nested(path: Path) -> None:
    os.makedirs(path)
    home = os.getcwd()
    os.chdir(path)
    for _ in range(40):  # longer than a path may be
        os.mkdir("folder" * 20)
        os.chdir("folder" * 20)
    os.chdir(home)


# What may stand where a file or a folder belongs.
IN_PLACE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "empty file": lambda path: path.touch(),
    "text": lambda path: path.write_text("no such thing\n" * 50),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "empty folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "socket": _socket,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "folder that links to itself": lambda path: (path.mkdir(), (path / "again").symlink_to("."))[0],
    "nested folders": _nested,
}
