"""Where the repository's parts lie."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SCRIPTS = REPOSITORY / "scripts"
DEMO = REPOSITORY / "demo"
