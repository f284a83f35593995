"""scripts/evaluate.py run in this process, and folders of noise for it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from helpers.paths import SCRIPTS

EXTRA = all(importlib.util.find_spec(name) for name in ("librosa", "matplotlib"))
needs_extra = pytest.mark.skipif(not EXTRA, reason="needs the extra evaluate")


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPTS / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: object) -> None:
    """Runs the script with these words, on the CPU."""
    module = _script()
    module.main(module.arguments().parse_args([*map(str, words), "--device", "cpu"]))


def write_noises(folder: Path, count: int, seconds: float, seed: int, level: float = 0.1) -> Path:
    """Makes a folder of sounds of white noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", rng.normal(0, level, round(seconds * 16000)), 16000)
    return folder
