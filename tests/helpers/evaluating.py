"""scripts/evaluate.py run in this process, and folders of noise for it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.script_modules import load_script

EXTRA = all(importlib.util.find_spec(name) for name in ("librosa", "matplotlib"))
needs_extra = pytest.mark.skipif(not EXTRA, reason="needs the extra evaluate")


def run(*words: object) -> None:
    """Runs the script with these words, on the CPU."""
    module = load_script("scripts/evaluate.py")
    module.main(module.arguments().parse_args([*map(str, words), "--device", "cpu"]))


def write_noises(folder: Path, count: int, seconds: float, seed: int, level: float = 0.1) -> Path:
    """Makes a folder of sounds of white noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", rng.normal(0, level, round(seconds * 16000)), 16000)
    return folder
