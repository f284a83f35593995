"""Evaluates a model: generates for prompts, and compares with held-out, coded and noisy clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from demo.classifier import SAMPLE_HZ, PromptClassifier
from demo.classifier_training import (
    Codes,
    LabelledClip,
    Wave,
    decode,
    encode,
    fit_classifier,
    labelled_clips,
)
from demo.modulated_noise import noise_modulated
from demo.prompts import ControlPrompt, control_prompts
from open_musiclm.audio import Sound, semantic_input, write_wave
from open_musiclm.data.store_fingerprints import tokenizer_fingerprints
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.generation.search import best_of_n
from open_musiclm.metrics.codec import log_spectral_distance, si_sdr
from open_musiclm.metrics.frechet import frechet_distance
from open_musiclm.metrics.ngram_overlap import ngram_overlap
from open_musiclm.progress_bar import with_progress
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

Report = dict[str, dict[str, Any]]

PROMPTS_AT_ONCE = 16
RECONSTRUCTED = 40
RUN_LENGTHS = (8, 16, 32)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured with: corpora of labelled clips, the token store of the training, and the number of prompts.

    How to generate is the model's generation config. Generated waves are written to `results_folder`.
    """

    classifier_corpora: Sequence[Path]
    held_out_corpus: Path
    training_tokens: Path
    results_folder: Path
    num_prompts: int


def evaluate(model: MusicLM, options: EvaluationOptions) -> Report:
    """All measurements of a model, by section. Raises UserError."""
    if model.sample_hz != SAMPLE_HZ:
        raise UserError(f"the model's codec has {model.sample_hz} Hz; the classifier needs {SAMPLE_HZ} Hz")
    config = model.generation_config
    store = TokenStore(options.training_tokens, model.config)
    store.description.check_fingerprints(options.training_tokens, tokenizer_fingerprints(model.tokenizer))
    labelled = [clip for folder in options.classifier_corpora for clip in labelled_clips(folder)]
    held_out = labelled_clips(options.held_out_corpus)
    if len(held_out) < 4:
        raise UserError(f"{options.held_out_corpus}: two Fréchet distances need four clips, found {len(held_out)}")
    if options.num_prompts < 2:
        raise UserError(f"--num_prompts {options.num_prompts}: the Fréchet distance needs two sounds")
    waves = [clip.wave(config.duration) for clip in held_out]
    prompts = control_prompts(options.num_prompts, config.seed)
    generated = _generate(model, prompts, options)
    codes = [encode(model.tokenizer, wave) for wave in waves]
    coarse = model.config.global_cfg.num_coarse_quantizers
    real = {
        "real clips": waves,
        "real clips through the codec": _recoded(model.tokenizer, codes, waves, None),
        "real clips through the coarse codebooks": _recoded(model.tokenizer, codes, waves, coarse),
    }
    classifier = fit_classifier(model.tokenizer, coarse, labelled, config.duration)
    return {
        "codec": _codec(model.tokenizer, waves, codes),
        "prompt adherence": {"clips that the classifier was fitted to": len(labelled)}
        | _adherence(classifier, prompts, generated, held_out, real),
        "distance": _distances(model, generated, real["real clips"], real["real clips through the codec"]),
        "memorization": _ngram_overlaps(model.tokenizer, store, generated, waves),
    }


def _generate(model: MusicLM, prompts: Sequence[ControlPrompt], options: EvaluationOptions) -> list[Wave]:
    """The best sample of each prompt, also written as a file."""
    best: list[Wave] = []
    batches = range(0, len(prompts), PROMPTS_AT_ONCE)
    for first in with_progress(batches, len(batches), "generating", "batches"):
        texts = [prompt.text for prompt in prompts[first : first + PROMPTS_AT_ONCE]]
        for candidates in best_of_n(model, texts, ClapScorer(model)):
            write_wave(options.results_folder / f"{len(best):03d}.flac", candidates[0].wave, model.sample_hz)
            best.append(candidates[0].wave)
    return best


def _recoded(tokenizer: MusicTokenizer, codes: Sequence[Codes], waves: Sequence[Wave], books: int | None) -> list[Wave]:
    """Waves through the first `books` codebooks, or all."""
    return [decode(tokenizer, code[..., :books], wave) for code, wave in zip(codes, waves, strict=True)]


def _codec(tokenizer: MusicTokenizer, waves: Sequence[Wave], codes: Sequence[Codes]) -> dict:
    """SI-SDR and log-spectral distance with the first codebooks, up to all, of some clips; each codebook's usage."""
    every = torch.cat([code.flatten(0, 1) for code in codes])
    bins = tokenizer.codec.codebook_size
    waves = waves[:RECONSTRUCTED]
    original = torch.stack(list(waves))
    report: dict[str, Any] = {"clips": len(waves)}
    for books in range(1, every.shape[1] + 1):
        coded = torch.stack(_recoded(tokenizer, codes[: len(waves)], waves, books))
        report[f"SI-SDR with {books} codebooks, dB"] = float(si_sdr(coded, original).mean())
        distance = log_spectral_distance(coded, original)
        report[f"log-spectral distance with {books} codebooks, dB"] = float(distance.mean())
    return report | {"codebook usage": [round(len(book.unique()) / bins, 3) for book in every.T]}


def _adherence(
    classifier: PromptClassifier,
    prompts: Sequence[ControlPrompt],
    generated: Sequence[Wave],
    held_out: Sequence[LabelledClip],
    real: Mapping[str, Sequence[Wave]],
) -> dict[str, Any]:
    """The share of generated clips that are classified as in their prompt, and of `real`, held-out clips that are
    classified correctly."""
    asked: dict[str, list[str]] = {
        "family": [prompt.family for prompt in prompts],
        "tempo": [*(prompt.tempo for prompt in prompts)],
    }
    labels = {"family": [clip.family for clip in held_out], "tempo": [clip.tempo for clip in held_out]}
    classify = {"family": classifier.families, "tempo": classifier.tempi}
    report: dict[str, Any] = {"prompts": len(prompts)}
    for key in ("family", "tempo"):
        answers = classify[key](generated)
        report[f"{key}, generated"] = _agreement(answers, asked[key])
        for name, waves in real.items():
            report[f"{key}, {name}"] = _agreement(classify[key](waves), labels[key])
        report[f"{key}, always the most frequent answer"] = max(Counter(asked[key]).values()) / len(prompts)
        report[f"{key}, answers"] = dict(Counter(answers))
    return report


def _agreement(answers: Sequence[str], right: Sequence[str]) -> float:
    return sum(answer == label for answer, label in zip(answers, right, strict=True)) / max(len(right), 1)


def _distances(model: MusicLM, generated: Sequence[Wave], real: Sequence[Wave], coded: Sequence[Wave]) -> dict:
    """Fréchet distances to every second held-out clip; all sets have the size of the smallest.

    The other clips are the floor, and what was made of these is compared: no set is paired with the reference.
    """
    reference, others = real[::2], real[1::2]
    count = min(len(generated), len(others))
    rng = torch.Generator().manual_seed(0)
    noisy = [noise_modulated(wave, SAMPLE_HZ, rng) for wave in others[:count]]
    sets = {"generated": generated, "other real clips": others, "through the codec": coded[1::2]}
    sets["noise-modulated"] = noisy
    embedded = embed_clips(model, reference[:count])
    distances = {name: frechet_distance(embed_clips(model, waves[:count]), embedded) for name, waves in sets.items()}
    return {"clips of each set": count, **distances}


def embed_clips(model: MusicLM, waves: Sequence[Wave]) -> Float[Tensor, "clips dim"]:
    """The CLAP embeddings of waves at `SAMPLE_HZ`, on the CPU."""
    return torch.stack([model.embed_sound(Sound(wave, SAMPLE_HZ)).cpu() for wave in waves])


def _ngram_overlaps(
    tokenizer: MusicTokenizer, store: TokenStore, generated: Sequence[Wave], held_out: Sequence[Wave]
) -> dict:
    """Shares of clips that have a run of token changes in common with a training clip."""
    training = [store.tokens(row, "semantic").flatten().tolist() for row in range(len(store))]
    sets = {"generated": generated, "real, unseen": held_out}
    tokens = {name: [semantic_tokens(tokenizer, wave) for wave in waves] for name, waves in sets.items()}
    return {
        f"runs of {length} changes, {name}": ngram_overlap(clips, training, length)
        for length in RUN_LENGTHS
        for name, clips in tokens.items()
    }


def semantic_tokens(tokenizer: MusicTokenizer, wave: Wave) -> list[int]:
    """The semantic tokens of a wave at `SAMPLE_HZ`."""
    normal = semantic_input(Sound(wave, SAMPLE_HZ), tokenizer.semantic.mert.sample_hz)
    return tokenizer.semantic_ids(normal[None].to(tokenizer.device)).flatten().tolist()
