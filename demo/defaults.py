"""Where the demo's model lies, and what its settings are beside those in the bundle's generation_config.json."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

BUNDLE = _FOLDER / "bundle"
RHYTHM_SCORER = _FOLDER / "rhythm_scorer.safetensors"
NUM_SEMANTIC_CANDIDATES = 12
