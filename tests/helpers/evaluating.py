"""scripts/evaluate.py run in this process, folders of noise for it, and the measure by a small CLAP."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.script_modules import load_script
from helpers.small_stack import CPU, Stack
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.tokenizers.clap import Clap

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


def clap_measure(stack: Stack) -> ClapMeasure:
    """The measure by the small stack's CLAP."""
    seconds = stack.config.global_cfg.clap_audio_length_seconds
    return ClapMeasure(Clap.load(stack.config, CPU), seconds, "small")
