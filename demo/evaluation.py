"""The evaluation of a bundle: generate for held-out prompts, and compare with held-out, recoded and noisy clips."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from demo.classifier import SAMPLE_HZ, Judge
from demo.classifier_training import (
    Codes,
    LabelledClip,
    Wave,
    decoded,
    encoded,
    labelled_clips,
    trained_judge,
)
from demo.prompts import ControlPrompt, control_prompts
from open_musiclm.audio import Sound, WaveStatistics, normalize, resampled, write_wave
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.generation.inference import load_musiclm, needed_stages, options_from
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.metrics.codec import log_spectral_distance, si_sdr
from open_musiclm.metrics.frechet import frechet_distance, noise_modulated
from open_musiclm.metrics.memorization import share_repeated
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

Report = dict[str, dict[str, Any]]

PROMPTS_AT_ONCE = 16
RECONSTRUCTED = 40
RUN_LENGTHS = (8, 16, 32)


def evaluate(arguments: argparse.Namespace) -> Report:
    """All measurements of a bundle, by section. Raises UserError."""
    model = load_musiclm(arguments, needed_stages(arguments))
    if model.sample_hz != SAMPLE_HZ:
        raise UserError(f"{arguments.model_config}: its codec has {model.sample_hz} Hz; the judge hears {SAMPLE_HZ} Hz")
    store = TokenStore(arguments.training_tokens, model.config)
    judge_clips = [clip for folder in arguments.judge_corpus for clip in labelled_clips(folder)]
    held_out = labelled_clips(arguments.held_out_corpus)
    waves = [clip.wave(arguments.duration) for clip in held_out]
    prompts = control_prompts(arguments.num_prompts, arguments.seed)
    generated = _generate(model, prompts, arguments)
    codes = [encoded(model.tokenizer, wave) for wave in waves]
    coarse = model.config.global_cfg.num_coarse_quantizers
    real = {
        "real clips": waves,
        "real clips through the codec": _recoded(model.tokenizer, codes, waves, None),
        "real clips through the coarse codebooks": _recoded(model.tokenizer, codes, waves, coarse),
    }
    judge = trained_judge(model.tokenizer, coarse, judge_clips, arguments.duration)
    return {
        "codec": _codec(model.tokenizer, waves, codes),
        "control": {"clips that the judge learned from": len(judge_clips)}
        | _control(judge, prompts, generated, held_out, real),
        "distance": _distances(model, generated, real["real clips"], real["real clips through the codec"]),
        "memorising": _memorising(model.tokenizer, store, generated, waves),
    }


def _generate(model: MusicLM, prompts: Sequence[ControlPrompt], arguments: argparse.Namespace) -> list[Wave]:
    """The sample of each prompt that is heard to be closest to it, also written as a file."""
    options = options_from(arguments)
    samples, drafts, sketches = arguments.num_samples, arguments.num_drafts, arguments.num_sketches
    chosen: list[Wave] = []
    for first in tqdm(range(0, len(prompts), PROMPTS_AT_ONCE), desc="generating"):
        texts = [prompt.text for prompt in prompts[first : first + PROMPTS_AT_ONCE]]
        if drafts is None:
            waves = model.generate(texts, arguments.duration, samples, options)
        else:
            waves = model.generate_best(texts, arguments.duration, samples, drafts, options, num_sketches=sketches)
        for number, text in enumerate(texts):
            own = waves[number * samples : (number + 1) * samples]
            best = max(own, key=lambda wave: model.listener.hear(text, wave).closeness) if len(own) > 1 else own[0]
            chosen.append(best)
            write_wave(arguments.results_folder / f"{first + number:03d}.flac", best, model.sample_hz)
    return chosen


def _recoded(tokenizer: MusicTokenizer, codes: Sequence[Codes], waves: Sequence[Wave], books: int | None) -> list[Wave]:
    """Waves through the first `books` codebooks, or all."""
    return [decoded(tokenizer, code[..., :books], wave) for code, wave in zip(codes, waves, strict=True)]


def _codec(tokenizer: MusicTokenizer, waves: Sequence[Wave], codes: Sequence[Codes]) -> dict:
    """SI-SDR and log-spectral distance with the first codebooks, up to all, of some clips; each codebook's usage."""
    every = torch.cat([code.flatten(0, 1) for code in codes])
    bins = tokenizer.codec.model.quantizer.bins
    waves = waves[:RECONSTRUCTED]
    original = torch.stack(list(waves))
    report: dict[str, Any] = {"clips": len(waves)}
    for books in range(1, every.shape[1] + 1):
        coded = torch.stack(_recoded(tokenizer, codes[: len(waves)], waves, books))
        report[f"SI-SDR with {books} codebooks, dB"] = float(si_sdr(coded, original).mean())
        distance = log_spectral_distance(coded, original)
        report[f"log-spectral distance with {books} codebooks, dB"] = float(distance.mean())
    return report | {"codebook usage": [round(len(book.unique()) / bins, 3) for book in every.T]}


def _control(
    judge: Judge,
    prompts: Sequence[ControlPrompt],
    generated: Sequence[Wave],
    held_out: Sequence[LabelledClip],
    real: Mapping[str, Sequence[Wave]],
) -> dict[str, Any]:
    """The share of clips that the judge hears as what was asked for; of the `real` ones, held out, as what they are."""
    asked: dict[str, list[str]] = {
        "family": [prompt.family for prompt in prompts],
        "tempo": [*(prompt.tempo for prompt in prompts)],
    }
    labels = {"family": [clip.family for clip in held_out], "tempo": [clip.tempo for clip in held_out]}
    heard = {"family": judge.families, "tempo": judge.tempi}
    report: dict[str, Any] = {"prompts": len(prompts)}
    for key in ("family", "tempo"):
        answers = heard[key](generated)
        report[f"{key}, generated"] = _agreement(answers, asked[key])
        for name, waves in real.items():
            report[f"{key}, {name}"] = _agreement(heard[key](waves), labels[key])
        report[f"{key}, always the most frequent answer"] = max(Counter(asked[key]).values()) / len(prompts)
        report[f"{key}, heard"] = dict(Counter(answers))
    return report


def _agreement(answers: Sequence[str], right: Sequence[str]) -> float:
    return sum(answer == label for answer, label in zip(answers, right, strict=True)) / max(len(right), 1)


def _distances(model: MusicLM, generated: Sequence[Wave], real: Sequence[Wave], coded: Sequence[Wave]) -> dict:
    """Fréchet distances to the held-out clips; all sets have the size of the smallest."""
    count = min(len(generated), len(real))
    generator = torch.Generator().manual_seed(0)
    noisy = [noise_modulated(wave, SAMPLE_HZ, generator) for wave in real[:count]]
    sets = {"generated": generated, "through the codec": coded, "noise-modulated": noisy}
    reference = _embedded(model, real[:count])
    distances = {name: frechet_distance(_embedded(model, waves[:count]), reference) for name, waves in sets.items()}
    return {"clips of each set": count, **distances}


def _embedded(model: MusicLM, waves: Sequence[Wave]) -> Float[Tensor, "clips dim"]:
    return torch.stack([model.listener.embed_sound(Sound(wave, SAMPLE_HZ)).cpu() for wave in waves])


def _memorising(
    tokenizer: MusicTokenizer, store: TokenStore, generated: Sequence[Wave], held_out: Sequence[Wave]
) -> dict:
    """Shares of clips that have a run of token changes in common with a training clip."""
    training = [store.tokens(row, "semantic").flatten().tolist() for row in range(len(store))]
    sets = {"generated": generated, "real, unseen": held_out}
    tokens = {name: [_semantic(tokenizer, wave) for wave in waves] for name, waves in sets.items()}
    return {
        f"runs of {length} changes, {name}": share_repeated(clips, training, length)
        for length in RUN_LENGTHS
        for name, clips in tokens.items()
    }


def _semantic(tokenizer: MusicTokenizer, wave: Wave) -> list[int]:
    heard = resampled(Sound(wave, SAMPLE_HZ), tokenizer.semantic.mert.sample_hz)
    normal = normalize(heard, WaveStatistics(float(heard.mean()), float(heard.std())))
    return tokenizer.semantic_ids(normal[None].to(tokenizer.semantic.centroids.device)).flatten().tolist()
