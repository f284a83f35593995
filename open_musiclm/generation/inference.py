"""What the inference scripts share: load the model from paths, generate, rank, write."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from demo.rhythm.scorer import RhythmEar
from open_musiclm.audio import Sound, read_sound, samples_of
from open_musiclm.checkpoints import weights_name
from open_musiclm.checkpoints.bundle import CONFIG_NAME, open_bundle
from open_musiclm.cli import require_arguments
from open_musiclm.config import StageName, load_model_config
from open_musiclm.devices import choose_device
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.output import Provenance, slug, write_generated
from open_musiclm.generation.progress import StageBars
from open_musiclm.generation.sampling import Sampling
from open_musiclm.generation.scorers import Heard
from open_musiclm.generation.session import Options, rows_of
from open_musiclm.models.stages import STAGE_NAMES, load_stage
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

_TOLD_ELSEWHERE = ("prompt", "prompts", "sounds", "seed", "results_folder")


@dataclass(frozen=True)
class Candidate:
    """One sample of a prompt, and how well it fits."""

    prompt: str
    number: int
    wave: Float[Tensor, "samples"]
    heard: Heard


def load_musiclm(arguments: argparse.Namespace, stages: Sequence[StageName]) -> MusicLM:
    """The model that the command line names, with the stages that the script needs. Raises UserError."""
    needed = ["model_config", "rvq_path", "kmeans_path", *(f"{name}_path" for name in stages)]
    if arguments.checkpoint_dir is not None:
        bundle = open_bundle(arguments.checkpoint_dir)
        for name in needed:
            if getattr(arguments, name) is None:
                setattr(arguments, name, bundle / CONFIG_NAME if name == "model_config" else bundle)
        if arguments.ear_path is None and (bundle / weights_name("rhythm_ear")).exists():
            arguments.ear_path = bundle
    require_arguments(arguments, needed)
    config = load_model_config(arguments.model_config)
    device = choose_device(arguments.device)
    loaded = {name: load_stage(getattr(arguments, f"{name}_path"), name, config, device) for name in stages}
    tokenizer = MusicTokenizer.load(config, arguments.rvq_path, arguments.kmeans_path, device)
    ear = None if arguments.ear_path is None else RhythmEar.load(arguments.ear_path, config, device)
    if ear is not None:
        ear.check(arguments.ear_path, tokenizer.semantic.mert.feature_dim, tokenizer.clap.embedding_dim)
    return MusicLM(config, loaded, tokenizer, getattr(torch, arguments.precision), ear)


def needed_stages(arguments: argparse.Namespace) -> list[StageName]:
    """All three, or without the fine stage where the coarse wave is all that is asked for."""
    return [name for name in STAGE_NAMES if name != "fine" or not arguments.return_coarse_wave]


def options_from(arguments: argparse.Namespace) -> Options:
    """How to generate, as the command line says."""
    return Options(arguments.seed, sampling_from(arguments), arguments.return_coarse_wave, arguments.max_batch_size)


def sampling_from(arguments: argparse.Namespace) -> dict[StageName, Sampling]:
    """How each stage samples, as the command line says."""
    return {
        name: Sampling(getattr(arguments, f"{name}_temperature"), arguments.top_k, arguments.top_p, scale)
        for name, scale in zip(STAGE_NAMES, arguments.cfg_scale, strict=True)
    }


def generate_candidates(
    model: MusicLM,
    prompts: Sequence[str],
    arguments: argparse.Namespace,
    num_samples: int,
    num_drafts: int | None = None,
    num_sketches: int | None = None,
) -> list[list[Candidate]]:
    """`num_samples` candidates of each prompt, the best match first; with `num_drafts` each won against so many, made
    of the best of `num_sketches` if there is an ear for rhythm."""
    given = read_sound(arguments.input_audio) if arguments.input_audio else None
    options, duration = options_from(arguments), arguments.duration
    with StageBars() as bars:
        if num_drafts is None:
            waves = model.generate(prompts, duration, num_samples, options, given, bars)
        else:
            waves = model.generate_best(prompts, duration, num_samples, num_drafts, options, given, bars, num_sketches)
    new = samples_of(duration, model.sample_hz)
    candidates = [
        Candidate(row.prompt, row.number, wave, model.listener.hear(row.prompt, wave[-new:]))
        for row, wave in zip(rows_of(prompts, num_samples), waves, strict=True)
    ]
    by_prompt = [candidates[first : first + num_samples] for first in range(0, len(candidates), num_samples)]
    return [sorted(own, key=lambda candidate: -candidate.heard.closeness) for own in by_prompt]


def regenerate_files(arguments: argparse.Namespace, first_stage: StageName) -> Iterator[Path]:
    """Regenerates the sound files that the command line names; yields the waves' paths. Raises UserError."""
    stages = needed_stages(arguments)
    model = load_musiclm(arguments, stages[stages.index(first_stage) :])
    listener = model.listener
    for source in arguments.sounds:
        given = read_sound(source)
        with StageBars() as bars:
            wave = model.regenerate(given, first_stage, source.name, options_from(arguments), bars)
        similarity = float(listener.embed_sound(given) @ listener.embed_sound(Sound(wave, model.sample_hz)))
        provenance = _provenance(source.name, 0, Heard(similarity, None, similarity), arguments)
        name = f"{slug(source.stem)}_seed{arguments.seed}_{first_stage}"
        yield write_generated(arguments.results_folder, name, wave, model.sample_hz, provenance)


def write_candidate(model: MusicLM, candidate: Candidate, rank: int, arguments: argparse.Namespace) -> Path:
    """Writes one candidate under a name made from its prompt; returns the wave's path."""
    provenance = _provenance(candidate.prompt, candidate.number, candidate.heard, arguments)
    name = f"{slug(candidate.prompt)}_seed{arguments.seed}_{rank}"
    return write_generated(arguments.results_folder, name, candidate.wave, model.sample_hz, provenance)


def _provenance(prompt: str, number: int, heard: Heard, arguments: argparse.Namespace) -> Provenance:
    """Where a wave came from: everything on the command line but what is to be made and where it goes."""
    said = {key: value for key, value in vars(arguments).items() if key not in _TOLD_ELSEWHERE}
    paths = {key: str(value) for key, value in said.items() if isinstance(value, Path)}
    settings = {key: value for key, value in said.items() if key not in paths}
    return Provenance(prompt, arguments.seed, number, heard, settings, paths)
