"""What a correction of text embeddings changes in generated music: prompts with and without it, judged in pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo.classifier import PromptClassifier
from demo.classifier_training import Wave
from demo.prompts import ControlPrompt
from open_musiclm import MusicLM
from open_musiclm.audio import write_wave
from open_musiclm.errors import UserError
from open_musiclm.generation.prompts.prompt_embedder import PromptEmbedder
from open_musiclm.metrics.intervals import percentile_interval
from open_musiclm.progress_bar import with_progress
from open_musiclm.tokenizers.text_correction import TextCorrection

_REPLICATES = 10_000
_PROMPTS_AT_ONCE = 8
KINDS = ("plain", "corrected")


def generate_pairs(
    model: MusicLM, correction: TextCorrection, prompts: Sequence[ControlPrompt], samples: int, folder: Path
) -> dict[str, list[list[Wave]]]:
    """The samples of every prompt without and with the correction, from the same random numbers; also written to
    `folder`."""
    made: dict[str, list[list[Wave]]] = {kind: [] for kind in KINDS}
    groups = list(range(0, len(prompts), _PROMPTS_AT_ONCE))
    for first in with_progress(groups, len(groups), "generating", "groups of prompts"):
        texts = [prompt.text for prompt in prompts[first : first + _PROMPTS_AT_ONCE]]
        for kind, own in zip(KINDS, (None, correction), strict=True):
            model.corrected_embedder = PromptEmbedder(model.embedder, own)
            waves = model.generate(texts, num_samples=samples)
            for number, wave in enumerate(waves, first * samples):
                write_wave(folder / f"{kind}_{number:04d}.flac", wave, model.sample_hz)
            made[kind] += [waves[place : place + samples] for place in range(0, len(waves), samples)]
    return made


def changed_prompts(
    model: MusicLM, correction: TextCorrection, prompts: Sequence[ControlPrompt]
) -> list[ControlPrompt]:
    """The prompts whose CLAP tokens the correction changes; all others give the same music.

    Raises UserError if there is none.
    """
    texts = model.embed_text([prompt.text for prompt in prompts])
    tokens = [model.tokenizer.quantizer.encode(own) for own in (texts, correction(texts))]
    changed = (tokens[0] != tokens[1]).any(dim=1).tolist()
    if not any(changed):
        raise UserError(f"the correction changes the CLAP tokens of none of {len(prompts)} prompts; take more prompts")
    return [prompt for prompt, is_changed in zip(prompts, changed, strict=True) if is_changed]


def measure_pairs(
    classifier: PromptClassifier, prompts: Sequence[ControlPrompt], made: dict[str, list[list[Wave]]]
) -> dict[str, Any]:
    """Shares of samples whose family, tempo and both are those of the prompt, and the difference with its 95 % interval
    over prompts."""
    right: dict[str, dict[str, list[float]]] = {}
    for kind, groups in made.items():
        waves = [wave for group in groups for wave in group]
        asked = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
        family = [a == b.family for a, b in zip(classifier.families(waves), asked, strict=True)]
        tempo = [a == b.tempo for a, b in zip(classifier.tempi(waves), asked, strict=True)]
        both = [a and b for a, b in zip(family, tempo, strict=True)]
        right[kind] = {
            name: np.reshape(values, (len(prompts), -1)).mean(axis=1).tolist()
            for name, values in (("family", family), ("tempo", tempo), ("both", both))
        }
    return {"prompts": len(prompts)} | {
        name: _compared(*(right[kind][name] for kind in KINDS)) for name in ("family", "tempo", "both")
    }


def _compared(plain: Sequence[float], corrected: Sequence[float]) -> dict[str, float | None]:
    before, after = torch.tensor(plain).double(), torch.tensor(corrected).double()
    found = percentile_interval(after - before, torch.mean, np.random.default_rng(0), _REPLICATES)
    shares = {"without": float(before.mean()), "with": float(after.mean())}
    return {**shares, "difference": found.value, "low": found.low, "high": found.high}
