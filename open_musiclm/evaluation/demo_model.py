"""The evaluation of a bundle: generate for held-out prompts, and compare with held-out, recoded and noisy clips."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from open_musiclm.audio import (
    Sound,
    WaveStatistics,
    fit_length,
    normalize,
    read_sound,
    resampled,
    samples_of,
    write_wave,
)
from open_musiclm.bundle import CONFIG_NAME, open_bundle
from open_musiclm.config import load_model_config
from open_musiclm.data.token_exchange import exchanged
from open_musiclm.data.token_store import TokenStore
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.evaluation.distances import frechet_distance, noise_modulated
from open_musiclm.evaluation.judge import SAMPLE_HZ, Judge
from open_musiclm.evaluation.memorising import share_repeated
from open_musiclm.evaluation.prompts import ControlPrompt, control_prompts
from open_musiclm.inference import needed_stages, options_from
from open_musiclm.models.musiclm import MusicLM
from open_musiclm.models.stages import load_stage
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.backbones.codec_metrics import log_spectral_distance, si_sdr

Wave = Float[Tensor, "samples"]
Report = dict[str, dict[str, Any]]

PROMPTS_AT_ONCE = 16
RECONSTRUCTED = 40
RUN_LENGTHS = (8, 16, 32)
MOST_EXCHANGED, EXCHANGED_NEARBY = 0.5, 8  # of the tokens; time steps


def evaluate(arguments: argparse.Namespace) -> Report:
    """All measurements of a bundle, by section. Raises UserError."""
    device = choose_device(arguments.device)
    precision = getattr(torch, arguments.precision)
    model, store = _load(arguments, device, precision)
    judge_clips = [clip for folder in arguments.judge_corpus for clip in _labelled(folder, arguments.duration)]
    held_out = _labelled(arguments.held_out_corpus, arguments.duration)
    prompts = control_prompts(arguments.num_prompts, arguments.seed)
    generated = _generate(model, prompts, arguments)
    codes = _encoded(model.tokenizer, held_out)
    coarse = model.config.global_cfg.num_coarse_quantizers
    real = {
        "real clips": [clip["wave"] for clip in held_out],
        "real clips through the codec": _recoded(model.tokenizer, codes, held_out, None),
        "real clips through the coarse codebooks": _recoded(model.tokenizer, codes, held_out, coarse),
    }
    judge = _trained_judge(model.tokenizer, coarse, judge_clips)
    return {
        "codec": _codec(model.tokenizer, held_out, codes),
        "control": {"clips that the judge learned from": len(judge_clips)}
        | _control(judge, prompts, generated, held_out, real),
        "distance": _distances(model, generated, real["real clips"], real["real clips through the codec"]),
        "memorising": _memorising(model.tokenizer, store, generated, held_out),
    }


def _load(arguments: argparse.Namespace, device: torch.device, precision: torch.dtype) -> tuple[MusicLM, TokenStore]:
    bundle = open_bundle(arguments.checkpoint_dir)
    config = load_model_config(bundle / CONFIG_NAME)
    if config.encodec_cfg.sample_hz != SAMPLE_HZ:
        raise UserError(f"{bundle}: its codec has {config.encodec_cfg.sample_hz} Hz; the judge hears {SAMPLE_HZ} Hz")
    stages = {name: load_stage(bundle, name, config, device) for name in needed_stages(arguments)}
    tokenizer = MusicTokenizer.load(config, bundle, bundle, device)
    return MusicLM(config, stages, tokenizer, precision), TokenStore(arguments.training_tokens, config)


def _labelled(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """The lines of a corpus's captions.jsonl whose instruments are one family, each with its first seconds."""
    try:
        lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{folder}: no captions.jsonl; make a corpus with scripts/make_demo_corpus.py") from error
    clips = [clip for clip in map(json.loads, lines) if clip["instrument_family"] not in ("mixed", "bass")]
    for clip in clips:
        wave = resampled(read_sound(folder / clip["file"]), SAMPLE_HZ)
        clip["wave"] = fit_length(wave, samples_of(seconds, SAMPLE_HZ))
    if not clips:
        raise UserError(f"{folder}: no clip there is of one instrument family")
    return clips


def _generate(model: MusicLM, prompts: Sequence[ControlPrompt], arguments: argparse.Namespace) -> list[Wave]:
    """The sample of each prompt that CLAP finds closest to it, also written as a file."""
    options = options_from(arguments)
    samples, drafts = arguments.num_samples, arguments.num_drafts
    chosen: list[Wave] = []
    for first in tqdm(range(0, len(prompts), PROMPTS_AT_ONCE), desc="generating"):
        texts = [prompt.text for prompt in prompts[first : first + PROMPTS_AT_ONCE]]
        if drafts is None:
            waves = model.generate(texts, arguments.duration, samples, options)
        else:
            waves = model.generate_best(texts, arguments.duration, samples, drafts, options)
        for number, text in enumerate(texts):
            own = waves[number * samples : (number + 1) * samples]
            best = max(own, key=lambda wave: model.similarity(text, wave)) if len(own) > 1 else own[0]
            chosen.append(best)
            write_wave(arguments.results_folder / f"{first + number:03d}.flac", best, model.sample_hz)
    return chosen


def _encoded(tokenizer: MusicTokenizer, clips: Sequence[dict]) -> list[Int[Tensor, "1 time quantizers"]]:
    return [tokenizer.codec.encode(clip["wave"][None]) for clip in clips]


def _recoded(
    tokenizer: MusicTokenizer, codes: Sequence[Tensor], clips: Sequence[dict], books: int | None
) -> list[Wave]:
    """The clips through the first `books` codebooks, or all."""
    return [_decode(tokenizer, code[..., :books], clip["wave"]) for code, clip in zip(codes, clips, strict=True)]


def _decode(tokenizer: MusicTokenizer, codes: Int[Tensor, "1 time quantizers"], like: Wave) -> Wave:
    return fit_length(tokenizer.codec.decode(codes)[0].cpu(), len(like))


def _codec(tokenizer: MusicTokenizer, clips: Sequence[dict], codes: Sequence[Tensor]) -> dict:
    """SI-SDR and log-spectral distance with the first codebooks, up to all, of some clips; each codebook's usage."""
    every = torch.cat([code.flatten(0, 1) for code in codes])
    bins = tokenizer.codec.model.quantizer.bins
    clips = clips[:RECONSTRUCTED]
    original = torch.stack([clip["wave"] for clip in clips])
    report: dict[str, Any] = {"clips": len(clips)}
    for books in range(1, every.shape[1] + 1):
        waves = _recoded(tokenizer, codes[: len(clips)], clips, books)
        report[f"SI-SDR with {books} codebooks, dB"] = float(si_sdr(torch.stack(waves), original).mean())
        distance = log_spectral_distance(torch.stack(waves), original)
        report[f"log-spectral distance with {books} codebooks, dB"] = float(distance.mean())
    return report | {"codebook usage": [round(len(book.unique()) / bins, 3) for book in every.T]}


def _trained_judge(tokenizer: MusicTokenizer, coarse: int, clips: Sequence[dict]) -> Judge:
    """A judge that heard each clip as it is, through the codec, through its `coarse` first codebooks, and through these
    with some of the tokens exchanged.

    It is to hear what plays, and not to mistake the codec, how little of it is used, or its noise for a sound.
    """
    codes = _encoded(tokenizer, clips)
    generator = torch.Generator().manual_seed(0)
    disturbed = [_disturbed(code, generator) for code in codes]
    ways = ((codes, None), (codes, coarse), (disturbed, coarse))
    recoded = [wave for some, books in ways for wave in _recoded(tokenizer, some, clips, books)]
    labelled = [*clips] * (1 + len(ways))
    return Judge().fit(
        [*(clip["wave"] for clip in clips), *recoded],
        [clip["instrument_family"] for clip in labelled],
        [clip["tempo_class"] for clip in labelled],
    )


def _disturbed(code: Int[Tensor, "1 time quantizers"], generator: torch.Generator) -> Int[Tensor, "1 time quantizers"]:
    """Up to half of the tokens exchanged for others nearby, or from anywhere in the clip."""
    share, nearby = torch.rand(2, generator=generator).tolist()
    reach = EXCHANGED_NEARBY if nearby < 0.5 else code.shape[1]
    return exchanged(code[0].cpu(), MOST_EXCHANGED * share, reach, generator)[None].to(code.device)


def _control(
    judge: Judge,
    prompts: Sequence[ControlPrompt],
    generated: Sequence[Wave],
    held_out: Sequence[dict],
    real: Mapping[str, Sequence[Wave]],
) -> dict[str, Any]:
    """The share of clips that the judge hears as what was asked for; of the `real` ones, held out, as what they are."""
    asked: dict[str, list[str]] = {
        "family": [prompt.family for prompt in prompts],
        "tempo": [*(prompt.tempo for prompt in prompts)],
    }
    labels = {key: [clip[name] for clip in held_out] for key, name in _LABELS.items()}
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


_LABELS = {"family": "instrument_family", "tempo": "tempo_class"}


def _agreement(answers: Sequence[str], right: Sequence[str]) -> float:
    return sum(answer == label for answer, label in zip(answers, right, strict=True)) / max(len(right), 1)


def _distances(model: MusicLM, generated: Sequence[Wave], real: Sequence[Wave], recoded: Sequence[Wave]) -> dict:
    """Fréchet distances to the held-out clips; all sets have the size of the smallest."""
    count = min(len(generated), len(real))
    generator = torch.Generator().manual_seed(0)
    noisy = [noise_modulated(wave, SAMPLE_HZ, generator) for wave in real[:count]]
    sets = {"generated": generated, "through the codec": recoded, "noise-modulated": noisy}
    reference = _embedded(model, real[:count])
    distances = {name: frechet_distance(_embedded(model, waves[:count]), reference) for name, waves in sets.items()}
    return {"clips of each set": count, **distances}


def _embedded(model: MusicLM, waves: Sequence[Wave]) -> Float[Tensor, "clips dim"]:
    return torch.stack([model.embed_sound(Sound(wave, SAMPLE_HZ)).cpu() for wave in waves])


def _memorising(
    tokenizer: MusicTokenizer, store: TokenStore, generated: Sequence[Wave], held_out: Sequence[dict]
) -> dict:
    """Shares of clips that have a run of token changes in common with a training clip."""
    training = [store.piece(row, "semantic", 0, None).flatten().tolist() for row in range(len(store))]
    sets = {"generated": generated, "real, unseen": [clip["wave"] for clip in held_out]}
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
