"""README and docs/ as tests read them: pages, and the commands on them."""

import re
import shlex
from pathlib import Path

from helpers.paths import REPOSITORY

LOG = REPOSITORY / "dev" / "LOG.md"


def pages() -> list[Path]:
    """README and all pages below docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def text() -> str:
    """All pages, one after the other."""
    return "\n".join(page.read_text(encoding="utf-8") for page in pages())


def commands() -> list[str]:
    """Every command of a script, benchmark or part of the demo, once and on one line, without variables before it.

    Commands are indented by four spaces.
    """
    joined = re.sub(r" *\\\n *", " ", text())
    found = re.findall(r"^    (?:\w+=\S+ )*(python (?:scripts|benchmarks|demo)/.*)$", joined, flags=re.MULTILINE)
    return list(dict.fromkeys(found))


def command(*named: str) -> list[str]:
    """The arguments after `python` of the one command that has all these words."""
    (found,) = [line for line in commands() if all(word in line for word in named)]
    return shlex.split(found)[1:]
