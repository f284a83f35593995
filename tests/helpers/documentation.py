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
    """Every `python scripts/...` command, once and on one line; commands are indented by four spaces."""
    joined = re.sub(r" *\\\n *", " ", text())
    return list(dict.fromkeys(re.findall(r"^    (python scripts/.*)$", joined, flags=re.MULTILINE)))


def command(*named: str) -> list[str]:
    """The arguments after `python` of the one command that has all these words."""
    (found,) = [line for line in commands() if all(word in line for word in named)]
    return shlex.split(found)[1:]
