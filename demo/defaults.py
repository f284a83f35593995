"""Where the demo's model lies."""

from pathlib import Path

BUNDLE = Path(__file__).resolve().parent / "bundle"
