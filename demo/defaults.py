"""The path of the demo's model."""

from pathlib import Path

BUNDLE = Path(__file__).resolve().parent / "bundle"
