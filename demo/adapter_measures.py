"""The effect of an adapter for a new instrument: on its own prompts, on other prompts, and on memorization."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from demo.classifier import PromptClassifier
from demo.classifier_training import LabelledClip, Wave, fit_classifier, labelled_clips
from demo.evaluation import embed_clips, semantic_tokens
from demo.prompts import control_prompts, prompts_for
from open_musiclm.audio import find_sounds
from open_musiclm.data.token_store import TokenStore
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.metrics.ngram_overlap import ngram_overlap

Measures = dict[str, str]
RUN_LENGTHS = (8, 16)


@dataclass(frozen=True)
class Reference:
    """Real music: clips of the new instrument that were not trained on, other families', and the training's tokens."""

    instrument: str
    names: Sequence[str]
    held_out: Sequence[LabelledClip]
    others: Sequence[LabelledClip]
    training: Sequence[Sequence[int]]

    @classmethod
    def read(cls, names: Sequence[str], held_out: Path, corpora: Sequence[Path], tokens: TokenStore) -> "Reference":
        """From folders of sound, demo corpora, and the store that the adapter was trained on. Raises UserError."""
        clips = [LabelledClip(path, names[0], "") for path in find_sounds(held_out)]
        others = [clip for folder in corpora for clip in labelled_clips(folder)]
        paths = tokens.paths()
        rows = [row for row in range(len(tokens)) if not paths[row].startswith("valid/")]
        training = [tokens.tokens(row, "semantic").flatten().tolist() for row in rows]
        return cls(names[0], names, clips, others, training)


@dataclass(frozen=True)
class Generated:
    """Waves of one model: for prompts of the new instrument, and for those of the control prompts."""

    own: Sequence[Wave]
    control: Sequence[Wave]


def generate(model: MusicLM, reference: Reference, own: int, control: int) -> Generated:
    """One sample of each prompt."""
    duration = model.generation_config.duration
    prompts = prompts_for(reference.names, own, seed=0)
    return Generated(
        model.generate(prompts, duration),
        model.generate([prompt.text for prompt in control_prompts(control, 0)], duration),
    )


def measure(model: MusicLM, before: Generated, after: Generated, reference: Reference) -> Measures:
    """All measures by name; those of two models as "before -> after". `model` gives tokenizers and CLAP."""
    seconds = model.generation_config.duration
    real = [clip.wave(seconds) for clip in reference.held_out]
    coarse = model.config.global_cfg.num_coarse_quantizers
    classifier = fit_classifier(model.tokenizer, coarse, [*reference.others, *reference.held_out], seconds)
    return {
        **_preference(model, before.own, after.own, real),
        **_classes(classifier, before, after, reference),
        **_ngram_overlaps(model, before, after, real, reference),
    }


def _preference(model: MusicLM, before: Sequence[Wave], after: Sequence[Wave], real: Sequence[Wave]) -> Measures:
    """CLAP's similarity of generated clips to the mean of real ones, each prompt with itself."""
    centre = torch.nn.functional.normalize(embed_clips(model, real).mean(dim=0), dim=0)
    old, new = (embed_clips(model, waves) @ centre for waves in (before, after))
    gain = new - old
    error = float(gain.std()) / math.sqrt(len(gain))
    return {
        "CLAP similarity to held-out clips of the instrument": f"{old.mean():.3f} -> {new.mean():.3f}",
        "its gain, with one standard error": f"{gain.mean():.3f} +- {error:.3f}",
        "prompts whose similarity rose": f"{int((gain > 0).sum())} of {len(gain)}",
    }


def _classes(classifier: PromptClassifier, before: Generated, after: Generated, reference: Reference) -> Measures:
    """The results of an independent classifier."""
    wanted = [prompt.family for prompt in control_prompts(len(before.control), 0)]
    found = {}
    own, right, taken = [], [], []
    for generated in (before, after):
        answers = classifier.families(generated.own)
        own.append(sum(answer == reference.instrument for answer in answers) / len(answers))
        answers = classifier.families(generated.control)
        right.append(sum(answer == family for answer, family in zip(answers, wanted, strict=True)) / len(answers))
        taken.append(sum(answer == reference.instrument for answer in answers) / len(answers))
    found["classified as the instrument, its own prompts"] = f"{own[0]:.1%} -> {own[1]:.1%}"
    found["classified as their family, control prompts"] = f"{right[0]:.1%} -> {right[1]:.1%}"
    found["classified as the instrument, control prompts"] = f"{taken[0]:.1%} -> {taken[1]:.1%}"
    return found


def _ngram_overlaps(
    model: MusicLM, before: Generated, after: Generated, real: Sequence[Wave], reference: Reference
) -> Measures:
    """Shares of clips with a run of token changes that some training clip has too."""
    sets = {"control prompts": (before.control, after.control), "its own prompts": (before.own, after.own)}
    found: Measures = {}
    for length in RUN_LENGTHS:
        for name, pair in sets.items():
            shares = [_repeated(model, waves, reference, length) for waves in pair]
            found[f"runs of {length} changes in common with training, {name}"] = f"{shares[0]:.1%} -> {shares[1]:.1%}"
        unseen = _repeated(model, real, reference, length)
        found[f"runs of {length} changes in common with training, real unseen clips"] = f"{unseen:.1%}"
    return found


def _repeated(model: MusicLM, waves: Sequence[Wave], reference: Reference, length: int) -> float:
    return ngram_overlap([semantic_tokens(model.tokenizer, wave) for wave in waves], reference.training, length)
